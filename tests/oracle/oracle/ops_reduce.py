"""Reductions, resizing, and conversions between element types."""

import numpy as np

from .case import RANGES, Case, operator
from .model import TYPES, Model, Quant, options


def reduced(draw, x_shape):
    """Axes (some negative) and the shapes with and without the reduced axes."""
    rank = len(x_shape)
    axes = draw.permutation(rank)[: draw.int(1, rank)]
    if rank == 4 and draw.chance(0.4):
        axes = [1, 2] if draw.chance(0.7) else [2, 1]
    kept = [1 if i in axes else d for i, d in enumerate(x_shape)]
    gone = [d for i, d in enumerate(x_shape) if i not in axes]
    named = [a - rank if draw.chance(0.25) else a for a in axes]
    return axes, named, kept, gone


def reduction(draw, dtype, name, quants=None, factor_of=None):
    x_shape = draw.shape(1, 4, 8, 4)
    axes, named, kept, gone = reduced(draw, x_shape)
    keep = draw.cycle([True, False])
    out = kept if keep else gone
    count = int(np.prod([x_shape[a] for a in axes]))
    if factor_of is not None:
        quants = factor_of(count)
    qx, qy = quants or (draw.quant(dtype),) * 2
    model = Model()
    x = model.main.input(x_shape, dtype, qx)
    axis = model.main.constant(np.array(named, np.int32))
    y = model.main.output(out, dtype, qy)
    model.main.op(name, [x, axis], [y], options("Reducer", keepDims=keep))
    parameters = {"input": x_shape, "axes": named, "keep_dims": keep, "output": out}
    return Case(model, [draw.inputs(x_shape, dtype)], parameters)


def sum_factor(draw, dtype, mean):
    """Scales for a sum of `count` values: ordinary and extreme quotients that do not overflow 32 bits."""
    if dtype == "float32":
        return None

    def quants(count):
        top = 65536 if dtype == "int16" else 255
        factor = draw.multiplier(top * count if not mean else top, RANGES[dtype][1])
        factor = min(factor, 2.0**29 / (top * count))
        so = draw.scale()
        si = float(np.float32(so * factor))
        return Quant(si, draw.zero_point(dtype)), Quant(so, draw.zero_point(dtype))

    return quants


@operator("MEAN", tflm="int8 int16 float32", litert="uint8")
def mean(draw, dtype):
    return reduction(draw, dtype, "MEAN", factor_of=sum_factor(draw, dtype, True))


@operator("SUM", tflm="int8 int16 float32", litert="uint8")
def sum_(draw, dtype):
    return reduction(draw, dtype, "SUM", factor_of=sum_factor(draw, dtype, False))


@operator("REDUCE_MAX", tflm="int8 float32", litert="uint8", extra="int16 int32")
def reduce_max(draw, dtype):
    return reduction(draw, dtype, "REDUCE_MAX")


@operator("REDUCE_MIN", tflm_extra="int8 float32", extra="uint8")
def reduce_min(draw, dtype):
    return reduction(draw, dtype, "REDUCE_MIN")


def arg(draw, dtype, name):
    x_shape = draw.shape(1, 4, 9, 6)
    axis = draw.int(0, len(x_shape) - 1)
    out = x_shape[:axis] + x_shape[axis + 1 :]
    model = Model()
    x = model.main.input(x_shape, dtype, draw.quant(dtype))
    named = axis - len(x_shape) if draw.chance(0.3) else axis
    a = model.main.constant(np.array(named, np.int32).reshape([] if draw.chance(0.5) else [1]))
    y = model.main.output(out, "int32")
    kind = {"ARG_MAX": "ArgMax", "ARG_MIN": "ArgMin"}[name]
    model.main.op(name, [x, a], [y], options(kind, outputType=TYPES["int32"][0]))
    values = draw.inputs(x_shape, dtype)
    if draw.cycle([False, True]):  # many ties: the first one wins
        values = (values % 3).astype(values.dtype) if dtype != "float32" else np.round(values)
    return Case(model, [values], {"input": x_shape, "axis": named})


@operator("ARG_MAX", tflm="int8 float32", litert="uint8")
def arg_max(draw, dtype):
    return arg(draw, dtype, "ARG_MAX")


@operator("ARG_MIN", tflm="int8 float32", litert="uint8")
def arg_min(draw, dtype):
    return arg(draw, dtype, "ARG_MIN")


def resized(draw, dtype, name, modes):
    align, half = draw.cycle(modes)
    x_shape = [draw.pick([1, 1, 2]), draw.size(1, 7, 4), draw.size(1, 7, 4), draw.size(1, 5, 2)]
    size = [draw.size(1, 14, 7), draw.size(1, 14, 7)]
    if draw.chance(0.2):
        size = [2 * x_shape[1], 2 * x_shape[2]]
    quant = draw.quant(dtype)
    model = Model()
    x = model.main.input(x_shape, dtype, quant)
    s = model.main.constant(np.array(size, np.int32))
    y = model.main.output([x_shape[0], *size, x_shape[3]], dtype, quant)
    kind = "ResizeBilinear" if name == "RESIZE_BILINEAR" else "ResizeNearestNeighbor"
    table = options(kind, alignCorners=align, halfPixelCenters=half)
    model.main.op(name, [x, s], [y], table)
    model.versions(3)
    parameters = {"input": x_shape, "size": size, "align_corners": align, "half_pixel_centers": half}
    return Case(model, [draw.inputs(x_shape, dtype)], parameters)


@operator("RESIZE_BILINEAR", tflm="int8 float32", litert="uint8")
def resize_bilinear(draw, dtype):
    return resized(draw, dtype, "RESIZE_BILINEAR", [(False, True), (True, False), (False, False)])


@operator("RESIZE_NEAREST_NEIGHBOR", tflm="int8 int16 float32", litert="uint8")
def resize_nearest_neighbor(draw, dtype):
    modes = [(False, True), (True, False), (False, False), (True, True)]
    return resized(draw, dtype, "RESIZE_NEAREST_NEIGHBOR", modes)


def converted(draw, source, target, name, qx, qy, values, table=None, parameters=None):
    shape = list(values.shape[1:])
    model = Model()
    x = model.main.input(shape, source, qx)
    y = model.main.output(shape, target, qy)
    model.main.op(name, [x], [y], table)
    model.versions(2)
    return Case(model, [values], {"shape": shape} | (parameters or {}))


def wide_values(draw, dtype):
    if dtype in ("int8", "uint8"):
        low, high = RANGES[dtype]
        return np.arange(low, high + 1).astype(dtype).reshape([1, 1, 256])
    return draw.inputs(draw.shape(1, 4, 8, 5), dtype)


@operator(
    "QUANTIZE",
    tflm="float32_int8 float32_int16 int8_int8 int8_uint8 uint8_int8 int8_int16 int16_int8 int16_int16 int32_int16",
    tflm_extra="int8_int32 int16_int32 int32_int8",
    litert="float32_uint8 uint8_uint8",
)
def quantize(draw, dtype):
    source, target = dtype.split("_")
    so = draw.scale()
    qy = Quant(so, 0 if target == "int32" else draw.zero_point(target))
    if source == "float32":
        values = draw.inputs(draw.shape(1, 4, 8, 5), source)
        spread = so * draw.pick([20, 100, 100, 400] if target != "int16" else [2000, 30000])
        values = (values * np.float32(spread)).astype(np.float32)
        # Values exactly between two steps show the rounding.
        ties = ((draw.rng.integers(-100, 100, values.shape) + 0.5) * so).astype(np.float32)
        values = np.where(draw.rng.random(values.shape) < 0.3, ties, values)
        return converted(draw, source, target, "QUANTIZE", None, qy, values)
    values = wide_values(draw, source)
    bound = {"int8": 256, "uint8": 256, "int16": 65536, "int32": 2**30}[source]
    if source == "int32":
        values = np.clip(values, -(2**29), 2**29).astype(np.int32)
    factor = draw.multiplier(bound, RANGES[target][1] if target != "int32" else 2**20)
    si = float(np.float32(so * factor))
    qx = Quant(si, 0 if source == "int32" else draw.zero_point(source))
    return converted(draw, source, target, "QUANTIZE", qx, qy, values)


@operator("DEQUANTIZE", tflm="int8_float32 int16_float32 uint8_float32", litert="float16_float32")
def dequantize(draw, dtype):
    source = dtype.split("_")[0]
    quant = Quant(draw.scale(), draw.zero_point(source)) if source != "float16" else None
    if source != "float16":
        return converted(draw, source, "float32", "DEQUANTIZE", quant, None, wide_values(draw, source))
    # float16 comes as constants: the weights of a float model. One of them is added to the input.
    shape = draw.shape(1, 3)
    model = Model()
    x = model.main.input(shape, "float32")
    half = model.main.constant((draw.values(shape, "float32") * 4).astype(np.float16))
    wide = model.main.tensor(shape, "float32")
    y = model.main.output(shape, "float32")
    model.main.op("DEQUANTIZE", [half], [wide])
    model.main.op("ADD", [x, wide], [y], options("Add"))
    model.versions(3)
    model.m.operatorCodes[1].version = 1
    return Case(model, [draw.inputs(shape, "float32")], {"shape": shape, "constant": True})


CASTS = [
    f"{a}_{b}"
    for a in ("int8", "int16", "int32", "uint32", "float32", "bool")
    for b in ("int8", "int16", "int32", "uint32", "float32")
    if a != b
]


@operator("CAST", tflm=" ".join(CASTS), extra="uint8_float32 float32_uint8 float32_bool int32_bool")
def cast(draw, dtype):
    source, target = dtype.split("_")
    values = draw.inputs(draw.shape(1, 3, 8, 5), source)
    if source == "float32":  # the value must fit the target: beyond it C++ defines nothing
        low, high = RANGES[target]
        top = min(high, 2**30)
        values = draw.rng.uniform(max(low, -top), top, values.shape).astype(np.float32)
        small = draw.rng.uniform(-3 if low < 0 else 0, 3, values.shape).astype(np.float32)
        values = np.where(draw.rng.random(values.shape) < 0.5, small, values)
    if target == "bool":
        values = (values % 3).astype(source) if source != "float32" else np.round(values)
    table = options("Cast", inDataType=TYPES[source][0], outDataType=TYPES[target][0])
    return converted(draw, source, target, "CAST", None, None, values, table)
