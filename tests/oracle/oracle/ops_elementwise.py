"""Operators on one or two tensors, element by element."""

import numpy as np

from .case import RANGES, Case, operator, same_scale
from .model import ACTIVATIONS, Model, Quant, options


def broadcast_pair(draw):
    """Shapes of two operands and the result: equal shapes, or one or both repeated along some axes."""
    kind = draw.cycle(["equal", "second", "first", "both", "scalar"])
    out = draw.shape(1, 4)
    if kind in ("equal",):
        return kind, out, list(out), list(out)

    def thin(shape):
        shape = [1 if draw.chance(0.5) else d for d in shape]
        drop = draw.int(0, len(shape) - 1) if draw.chance(0.4) else 0
        return shape[drop:]

    if kind == "second":
        a, b = list(out), thin(out)
    elif kind == "first":
        a, b = thin(out), list(out)
    elif kind == "both":
        a, b = list(out), list(out)
        for i in range(len(out)):
            if draw.chance(0.4):
                a[i] = 1
            elif draw.chance(0.4):
                b[i] = 1
    else:
        a, b = list(out), [1] * draw.int(1, len(out))
        if draw.chance(0.3):
            a, b = b, a
    return kind, a, b, list(np.broadcast_shapes(a, b))


def operands(draw, graph, dtype, shapes, quants, bound=None, positive_second=False):
    """Two operands: both inputs of the model, or one of them a constant."""
    constant = draw.cycle(["neither", "second", "neither", "first"])
    indices, inputs = [], []
    for name, shape, quant in zip(("first", "second"), shapes, quants):

        def make(shape, name=name):
            values = draw.values(shape, dtype, bound=bound)
            if positive_second and name == "second":
                values = np.where(values == 0, np.asarray(1, values.dtype), values)
            return values

        if constant == name:
            indices.append(graph.constant(make(shape), quant))
        else:
            indices.append(graph.input(shape, dtype, quant))
            inputs.append(make([draw.samples(), *shape]))
    return constant, indices, inputs


def binary(draw, dtype, name, quants=None, bound=None, table=None, positive_second=False):
    kind, a, b, out = broadcast_pair(draw)
    model = Model()
    if quants is None:
        quants = (None, None, None)
    constant, indices, inputs = operands(
        draw, model.main, dtype, (a, b), quants[:2], bound, positive_second
    )
    y = model.main.output(out, dtype, quants[2])
    parameters = {"shapes": [a, b, out], "broadcast": kind, "constant": constant}
    activation = "NONE"
    if table is not None:
        if dtype not in ("int32", "int64"):
            activation = draw.cycle(["NONE", "RELU", "NONE", "RELU6", "RELU_N1_TO_1"])
        table.fusedActivationFunction = ACTIVATIONS[activation]
        parameters["activation"] = activation
    model.main.op(name, indices, [y], table)
    return Case(model, inputs, parameters)


def sum_quants(draw, dtype):
    """Scales from equal to a factor of 2^20 apart; the output's from fine to coarse."""
    if dtype not in RANGES or dtype in ("int32", "int64"):
        return None
    kind = draw.cycle(["typical", "apart", "typical", "equal", "typical", "extreme"])
    if kind == "extreme":
        kind = draw.pick(["far apart", "coarse", "fine"])
    s1 = draw.scale()
    reach = {"equal": 0, "apart": 6, "far apart": 25}.get(kind, 1.5)
    s2 = s1 * 2.0 ** draw.real(-reach, reach)
    top = max(s1, s2)
    limit = 2.0 ** (-14 if dtype == "int16" else -19) * 1.01  # below, the output multiplier exceeds one
    ratio = {"coarse": 2.0 ** draw.real(3, 24), "fine": max(limit, 2.0 ** draw.real(-18, -3))}.get(
        kind, draw.real(0.6, 3)
    )
    so = max(top * ratio, top * limit)
    return tuple(Quant(float(np.float32(s)), draw.zero_point(dtype)) for s in (s1, s2, so))


@operator("ADD", tflm="int8 int16 int32 float32", litert="uint8")
def add(draw, dtype):
    return binary(draw, dtype, "ADD", sum_quants(draw, dtype), 2**29, options("Add"))


@operator("SUB", tflm="int8 int16 int32 float32", litert="uint8")
def sub(draw, dtype):
    return binary(draw, dtype, "SUB", sum_quants(draw, dtype), 2**29, options("Sub"))


@operator("MUL", tflm="int8 int16 int32 float32", litert="uint8")
def mul(draw, dtype):
    quants = None
    if dtype in ("int8", "uint8", "int16"):
        s1, s2 = draw.scale(), draw.scale()
        bound = 2**30 if dtype == "int16" else 255 * 255
        factor = draw.multiplier(bound, RANGES[dtype][1])
        so = same_scale(factor, float(np.float64(np.float32(s1)) * np.float64(np.float32(s2))))
        quants = tuple(Quant(s, draw.zero_point(dtype)) for s in (s1, s2, so))
    return binary(draw, dtype, "MUL", quants, 46000 if dtype == "int32" else None, options("Mul"))


@operator("DIV", tflm="int32 float32")
def div(draw, dtype):
    # Not int8: TFLM shifts by more than 31 bits there for most quotients, which is undefined.
    return binary(draw, dtype, "DIV", None, 2**29, options("Div"), positive_second=True)


def same_quants(draw, dtype):
    quant = draw.quant(dtype)
    return (quant, quant, quant)


@operator("MINIMUM", tflm="int8 int16 int32 float32", litert="uint8", tflm_extra="int64")
def minimum(draw, dtype):
    return binary(draw, dtype, "MINIMUM", same_quants(draw, dtype), table=None)


@operator("MAXIMUM", tflm="int8 int16 int32 float32", litert="uint8", tflm_extra="int64")
def maximum(draw, dtype):
    return binary(draw, dtype, "MAXIMUM", same_quants(draw, dtype), table=None)


def all_values(draw, dtype):
    """Every value of an 8-bit type once (in random order), as an array of samples; else random values."""
    if dtype in ("int8", "uint8"):
        low, high = RANGES[dtype]
        values = draw.rng.permutation(np.arange(low, high + 1)).astype(dtype)
        shape = draw.pick([[256], [1, 256], [4, 64], [1, 4, 8, 8], [2, 2, 64]])
        return shape, values.reshape([1, *shape])
    shape = draw.shape(1, 4, 8, 5)
    return shape, draw.inputs(shape, dtype)


def unary(draw, dtype, name, qx, qy, table=None, parameters=None, spread=None):
    shape, values = all_values(draw, dtype)
    if spread is not None and dtype == "float32":
        values = (values * spread).astype(np.float32)
    model = Model()
    x = model.main.input(shape, dtype, qx)
    y = model.main.output(shape, dtype, qy)
    model.main.op(name, [x], [y], table)
    return Case(model, [values], {"shape": shape} | (parameters or {}))


def fixed_output(draw, dtype, low, high, points):
    """Input quantization over a wide range of scales, output quantization as the operator prescribes."""
    if dtype == "float32":
        return None, None
    qx = Quant(draw.scale(low, high), draw.zero_point(dtype))
    scale, point = points[dtype]
    return qx, Quant(scale, point)


@operator("LOGISTIC", tflm="int8 int16 float32", litert="uint8")
def logistic(draw, dtype):
    if dtype == "int16":
        scale = draw.cycle([2.0**-12, draw.scale(1e-5, 1.0), 2.0**-11, draw.scale(1e-5, 1.0), 2.0**-15])
        qx, qy = Quant(scale, 0), Quant(2.0**-15, 0)
    else:
        points = {"int8": (2.0**-8, -128), "uint8": (2.0**-8, 0)}
        qx, qy = fixed_output(draw, dtype, 1e-5, 2.0, points)
    return unary(draw, dtype, "LOGISTIC", qx, qy, spread=draw.pick([1, 3, 30]))


@operator("TANH", tflm="int8 int16 float32", litert="uint8")
def tanh(draw, dtype):
    if dtype == "int16":
        scale = draw.cycle([2.0**-12, draw.scale(1e-5, 1.0), 2.0**-11, draw.scale(1e-5, 1.0), 2.0**-15])
        qx, qy = Quant(scale, 0), Quant(2.0**-15, 0)
    else:
        points = {"int8": (2.0**-7, 0), "uint8": (2.0**-7, 128)}
        qx, qy = fixed_output(draw, dtype, 1e-5, 2.0, points)
    return unary(draw, dtype, "TANH", qx, qy, spread=draw.pick([1, 3, 30]))


def rescaled(draw, dtype):
    """Input and output quantization with a rescaling factor from tiny to the largest that fits 32 bits."""
    if dtype == "float32":
        return None, None
    factor = draw.multiplier(65536 if dtype == "int16" else 256, RANGES[dtype][1])
    so = draw.scale()
    si = float(np.float32(so * factor))
    return Quant(si, draw.zero_point(dtype)), Quant(so, draw.zero_point(dtype))


@operator("RELU", tflm="int8 int16 float32", litert="uint8")
def relu(draw, dtype):
    return unary(draw, dtype, "RELU", *rescaled(draw, dtype))


@operator("RELU6", tflm="int8 int16 float32", litert="uint8")
def relu6(draw, dtype):
    quant = draw.quant(dtype)
    if dtype == "int8":  # six must be representable, or the operator is refused
        quant.scale = float(np.float32(6 / draw.real(1, max(1.5, 127 - quant.zero_point))))
    if dtype == "int16":
        quant.scale = draw.scale(2e-4, 0.5)
    return unary(draw, dtype, "RELU6", quant, quant, spread=6)


@operator("RELU_N1_TO_1", litert="int8 uint8 float32")
def relu_n1_to_1(draw, dtype):
    return unary(draw, dtype, "RELU_N1_TO_1", *rescaled(draw, dtype))


@operator("LEAKY_RELU", tflm="int8 int16 float32", litert="uint8")
def leaky_relu(draw, dtype):
    alpha = float(np.float32(draw.cycle([0.1, 0.0, 0.3, 1.0, draw.real(0, 0.5), 2.0**-10])))
    table = options("LeakyRelu", alpha=alpha)
    return unary(draw, dtype, "LEAKY_RELU", *rescaled(draw, dtype), table, {"alpha": alpha})


@operator("HARD_SWISH", tflm="int8 float32", litert="uint8")
def hard_swish(draw, dtype):
    qx, qy = None, None
    if dtype != "float32":
        si = draw.scale(1e-4, 1.0)
        so = float(np.float32(max(si / 127.9, si * draw.log_real(1 / 32, 16))))
        qx, qy = Quant(si, draw.zero_point(dtype)), Quant(so, draw.zero_point(dtype))
    return unary(draw, dtype, "HARD_SWISH", qx, qy, spread=3)


@operator("ELU", tflm="int8 float32")
def elu(draw, dtype):
    qx, qy = draw.quant(dtype, 1e-3, 0.3), draw.quant(dtype, 1e-3, 0.3)
    return unary(draw, dtype, "ELU", qx, qy)


def real_unary(name, dtypes="float32", low=-8.0, high=8.0):
    """An operator on real numbers between two bounds."""

    @operator(name, tflm=dtypes)
    def case(draw, dtype):
        shape = draw.shape(1, 4)
        model = Model()
        x = model.main.input(shape, dtype)
        y = model.main.output(shape, dtype)
        model.main.op(name, [x], [y])
        values = draw.values([draw.samples(), *shape], dtype)
        span = np.ptp(values) or 1
        scaled = (values - values.min()) / span * (high - low) + low
        return Case(model, [scaled.astype(np.float32)], {"shape": shape})

    return case


for _name in ("CEIL", "COS", "FLOOR", "NEG", "ROUND", "SIN", "SQUARE", "EXP"):
    real_unary(_name)
for _name in ("LOG", "SQRT"):
    real_unary(_name, low=0.01, high=50.0)


@operator("RSQRT", tflm="int8 float32")
def rsqrt(draw, dtype):
    if dtype == "int8":
        # TFLM aborts on negative numbers: with this zero point there are none.
        qx, qy = Quant(draw.scale(), -128), Quant(draw.scale(), draw.zero_point(dtype))
        return unary(draw, dtype, "RSQRT", qx, qy)
    shape = draw.shape(1, 4)
    model = Model()
    x, y = model.main.input(shape, dtype), model.main.output(shape, dtype)
    model.main.op("RSQRT", [x], [y])
    values = np.abs(draw.values([draw.samples(), *shape], dtype)) + np.float32(0.01)
    return Case(model, [values.astype(np.float32)], {"shape": shape})


@operator("ABS", tflm="int8 int16 float32")
def absolute(draw, dtype):
    return unary(draw, dtype, "ABS", *rescaled(draw, dtype))


@operator("SQUARED_DIFFERENCE", tflm="int8 int32 float32")
def squared_difference(draw, dtype):
    if dtype == "int8":
        return binary(draw, dtype, "SQUARED_DIFFERENCE", sum_quants(draw, dtype))
    return binary(draw, dtype, "SQUARED_DIFFERENCE", bound=1000)


@operator("PRELU", tflm="int8 int16 float32", litert="uint8")
def prelu(draw, dtype):
    x_shape = draw.shape(1, 4) if dtype != "uint8" else draw.shape(4, 4)
    kind = draw.cycle(["channel", "full", "scalar", "mixed"])
    if kind == "channel":
        a_shape = [1] * (len(x_shape) - 2) + [x_shape[-1]] if len(x_shape) > 1 else [x_shape[-1]]
    elif kind == "full":
        a_shape = list(x_shape)
    elif kind == "scalar":
        a_shape = [1]
    else:
        a_shape = [d if draw.chance(0.5) else 1 for d in x_shape]
    qx, qy = rescaled(draw, dtype)
    a_type = "int8" if dtype == "int16" else dtype
    qa = None
    if qx is not None:
        # The product of both rescalings must fit 32 bits as well.
        bound = 2.0**30 / ((65536 if dtype == "int16" else 256) * 256) * qy.scale / qx.scale
        qa = Quant(float(np.float32(min(draw.scale(), bound))), draw.zero_point(a_type))
    model = Model()
    x = model.main.input(x_shape, dtype, qx)
    inputs = [draw.inputs(x_shape, dtype)]
    variable = dtype != "uint8" and draw.cycle([False, False, False, True])
    if variable:
        alpha = model.main.input(a_shape, a_type, qa)
        inputs.append(draw.inputs(a_shape, a_type))
    else:
        alpha = model.main.constant(draw.values(a_shape, a_type), qa)
    y = model.main.output(x_shape, dtype, qy)
    model.main.op("PRELU", [x, alpha], [y])
    return Case(model, inputs, {"input": x_shape, "alpha": a_shape, "constant": not variable})


def rows(draw, dtype, name, qx, qy, out_type=None, table=None, parameters=None, rank=(1, 4), spread=4):
    """An operator along the last axis."""
    shape = [draw.size(1, 3, 2) for _ in range(draw.int(*rank) - 1)] + [draw.size(1, 40, 12)]
    model = Model()
    x = model.main.input(shape, dtype, qx)
    y = model.main.output(shape, out_type or dtype, qy)
    model.main.op(name, [x], [y], table)
    values = draw.inputs(shape, dtype)
    if dtype == "float32":
        values = (values * spread).astype(np.float32)
    elif draw.chance(0.3):  # equal neighbours and long tails
        values = np.maximum(values // draw.pick([8, 32]), RANGES[dtype][0]).astype(dtype)
    return Case(model, [values], {"shape": shape} | (parameters or {}))


@operator("SOFTMAX", tflm="int8 int8_int16 int16 float32", litert="uint8")
def softmax(draw, dtype):
    source, _, target = dtype.partition("_")
    target = target or source
    beta = float(np.float32(draw.cycle([1.0, 1.0, draw.real(0.2, 4)])))
    qx, qy = None, None
    if source != "float32":
        qx = Quant(draw.scale(1e-5 if source == "int16" else 1e-3, 0.3 if source == "int16" else 4.0))
        qx.zero_point = draw.zero_point(source)
        qy = {
            "int8": Quant(2.0**-8, -128),
            "uint8": Quant(2.0**-8, 0),
            "int16": Quant(2.0**-15, 0) if source == "int16" else Quant(2.0**-16, -32768),
        }[target]
    table = options("Softmax", beta=beta)
    rank = (1, 4) if dtype != "uint8" else (2, 4)
    return rows(draw, source, "SOFTMAX", qx, qy, target, table, {"beta": beta}, rank)


@operator("LOG_SOFTMAX", tflm="int8 float32", litert="uint8")
def log_softmax(draw, dtype):
    qx, qy = None, None
    if dtype != "float32":
        qx = Quant(draw.scale(1e-3, 1.0), draw.zero_point(dtype))
        qy = Quant(16 / 256, 127 if dtype == "int8" else 255)
    return rows(draw, dtype, "LOG_SOFTMAX", qx, qy)


@operator("L2_NORMALIZATION", tflm="int8 float32", litert="uint8")
def l2_normalization(draw, dtype):
    qx, qy = None, None
    if dtype != "float32":
        qx = Quant(draw.scale(), draw.zero_point(dtype))
        qy = Quant(2.0**-7, 0 if dtype == "int8" else 128)
    table = options("L2Norm")
    return rows(draw, dtype, "L2_NORMALIZATION", qx, qy, table=table, rank=(2, 4) if dtype == "uint8" else (1, 4))
