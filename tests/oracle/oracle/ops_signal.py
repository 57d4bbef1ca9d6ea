"""The custom signal operators of TensorFlow Lite Micro's audio front end. Options are flexbuffer maps."""

import numpy as np
from flatbuffers import flexbuffers

from .case import Case, operator
from .model import Model


def flexmap(values):
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in values.items():
            builder.Bool(key, value) if isinstance(value, bool) else builder.Int(key, value)
    return bytes(builder.Finish())


def signal(draw, name, inputs, constants, outputs, settings, values, stateful=False):
    model = Model()
    xs = [model.main.input(shape, dtype) for shape, dtype in inputs]
    cs = [model.main.constant(a) for a in constants]
    ys = [model.main.output(shape, dtype) for shape, dtype in outputs]
    model.main.op(name, xs + cs, ys, custom=flexmap(settings))
    parameters = {"input": inputs[0][0]} | settings
    return Case(model, values, parameters, stateful)


def loud(draw, shape):
    """int16 samples of any loudness."""
    values = draw.inputs(shape, "int16", edge=False)
    return (values >> draw.int(0, 14)).astype(np.int16) if draw.chance(0.7) else values


def wide_u32(draw, shape, bits):
    values = draw.rng.integers(0, 2**bits, [draw.samples(), *shape], np.uint32)
    return values >> draw.rng.integers(0, bits + 1, values.shape, np.uint32)


@operator("SignalWindow", tflm="int16")
def window(draw, dtype):
    n = draw.size(1, 64, 16)
    shape = draw.pick([[n], [1, n], [2, n]])
    weights = draw.values([n], "int16") if draw.chance(0.3) else draw.rng.integers(0, 4097, n, np.int16)
    settings = {"shift": draw.int(8, 15)}
    return signal(
        draw, "SignalWindow", [(shape, "int16")], [weights], [(shape, "int16")], settings, [loud(draw, shape)]
    )


@operator("SignalFftAutoScale", tflm="int16")
def fft_auto_scale(draw, dtype):
    n = draw.size(1, 64, 16)
    values = np.maximum(loud(draw, [n]), -32767)  # the magnitude of -32768 is beyond int16
    return signal(
        draw, "SignalFftAutoScale", [([n], "int16")], [], [([n], "int16"), ([], "int32")], {}, [values]
    )


@operator("SignalRfft", tflm="int16", tflm_extra="int32 float32")
def rfft(draw, dtype):
    length = draw.pick([16, 32, 64, 128]) if draw.tiny else draw.pick([16, 32, 64, 128, 256, 512])
    n = draw.pick([length, draw.int(1, length)])
    settings = {"T": {"int16": 7, "int32": 2, "float32": 0}[dtype], "fft_length": length}
    values = loud(draw, [n])
    if dtype != "int16":
        values = values.astype(dtype) * (256 if dtype == "int32" else np.float32(2**-10))
    return signal(
        draw, "SignalRfft", [([n], dtype)], [], [([length + 2], dtype)], settings, [values.astype(dtype)]
    )


@operator("SignalEnergy", tflm="int16")
def energy(draw, dtype):
    n = draw.size(1, 64, 16)
    # Elements in front of start_index are never written; a case that has some would compare garbage.
    settings = {"end_index": n, "start_index": 0}
    return signal(
        draw, "SignalEnergy", [([2 * n], "int16")], [], [([n], "uint32")], settings, [loud(draw, [2 * n])]
    )


@operator("SignalFilterBank", tflm="uint32")
def filter_bank(draw, dtype):
    channels = draw.size(1, 12, 5)
    widths = draw.rng.integers(0, 6, channels + 1, np.int16)
    starts = draw.rng.integers(0, 10, channels + 1, np.int16)
    weight_starts = (np.cumsum(widths) - widths).astype(np.int16)
    total, n = max(1, int(widths.sum())), int((starts + widths).max()) + 1
    weights = draw.rng.integers(0, 4097, total, np.int16)
    unweights = (4096 - weights).astype(np.int16)
    constants = [weights, unweights, starts, weight_starts, widths]
    return signal(
        draw,
        "SignalFilterBank",
        [([n], "uint32")],
        constants,
        [([channels], "uint64")],
        {"num_channels": channels},
        [wide_u32(draw, [n], 32)],
    )


@operator("SignalFilterBankSquareRoot", tflm="uint64")
def filter_bank_square_root(draw, dtype):
    n = draw.size(1, 40, 16)
    shape = [draw.samples(), n]
    values = draw.rng.integers(0, 2**63, shape, np.uint64) * 2 + draw.rng.integers(0, 2, shape, np.uint64)
    values >>= draw.rng.integers(0, 64, shape, np.uint64)
    roots = draw.rng.integers(0, 2**31, shape, np.uint64)
    near = roots * roots + draw.rng.integers(0, 3, shape, np.uint64)  # squares and their neighbours
    values = np.where(draw.rng.random(shape) < 0.3, near, values)
    bits = draw.rng.integers(0, 16, [shape[0]], np.int32)
    return signal(
        draw,
        "SignalFilterBankSquareRoot",
        [([n], "uint64"), ([], "int32")],
        [],
        [([n], "uint32")],
        {},
        [values, bits],
    )


@operator("SignalFilterBankSpectralSubtraction", tflm="uint32")
def spectral_subtraction(draw, dtype):
    n, bits = draw.size(1, 12, 5), draw.int(0, 12)
    one = 1 << 14
    smoothing, alternate = draw.int(0, one), draw.int(0, one)
    settings = {
        "alternate_one_minus_smoothing": one - alternate,
        "alternate_smoothing": alternate,
        "clamping": draw.cycle([False, True]),
        "min_signal_remaining": draw.int(0, one),
        "num_channels": n,
        "one_minus_smoothing": one - smoothing,
        "smoothing": smoothing,
        "smoothing_bits": bits,
        "spectral_subtraction_bits": 14,
    }
    shape = [1 if draw.tiny else 2, 4 if draw.tiny else 8, n]
    values = draw.rng.integers(0, 2 ** (32 - bits), shape, np.uint32) >> draw.rng.integers(0, 18, shape, np.uint32)
    outputs = [([n], "uint32"), ([n], "uint32")]
    return signal(
        draw,
        "SignalFilterBankSpectralSubtraction",
        [([n], "uint32")],
        [],
        outputs,
        settings,
        [values],
        stateful=True,
    )


def gain_table():
    """A gain curve of the PCAN front end, tabulated as quadratic pieces per octave."""

    def gain(x):
        return int(np.floor((1 << 21) * (x / 1024 + 80.0) ** -0.95 + 0.5))

    table = np.zeros(125, np.int64)
    table[0], table[1] = min(gain(0), 32767), min(gain(1), 32767)
    at = 2
    for interval in range(2, 33):
        x0, x1 = 1 << (interval - 1), min((1 << interval) - 1, 2**32 - 1)
        x2 = x0 + ((x1 - x0) >> 1)
        y0, y1, y2 = (min(gain(x), 32767) for x in (x0, x1, x2))
        d1, d2 = y2 - y0, y1 - y0
        table[at], table[at + 1], table[at + 2] = y0, 4 * d1 - d2, d2 - (4 * d1 - d2)
        at += 4 if interval < 32 else 3
    return np.clip(table, -32768, 32767).astype(np.int16)


@operator("SignalPCAN", tflm="uint32")
def pcan(draw, dtype):
    n = draw.size(1, 30, 10)
    table = gain_table()
    values = [wide_u32(draw, [n], 24), wide_u32(draw, [n], 31)]
    return signal(
        draw,
        "SignalPCAN",
        [([n], "uint32"), ([n], "uint32")],
        [table],
        [([n], "uint32")],
        {"snr_shift": draw.int(4, 12)},
        values,
    )


@operator("SignalFilterBankLog", tflm="uint32")
def filter_bank_log(draw, dtype):
    n, bits = draw.size(1, 40, 16), draw.int(0, 6)
    settings = {"input_correction_bits": bits, "output_scale": draw.pick([1, 32, 64, 512, 1600])}
    return signal(
        draw, "SignalFilterBankLog", [([n], "uint32")], [], [([n], "int16")], settings, [wide_u32(draw, [n], 32 - bits)]
    )


