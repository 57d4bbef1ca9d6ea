"""Convolutions, fully connected layers and pooling."""

import numpy as np

from .case import RANGES, Case, operator
from .model import ACTIVATIONS, PADDINGS, TYPES, Model, Quant, options, schema

LITERT_VERSIONS = {"float32_int8": 5}


def out_size(padding, size, window, stride, dilation=1):
    reach = (window - 1) * dilation + 1
    if padding == "SAME":
        return (size + stride - 1) // stride
    return (size + stride - reach) // stride


def weight_scales(draw, dtype, terms, channels, per_channel, bias_terms=40):
    """Scales of input, weights and output whose quotient covers ordinary and extreme multipliers."""
    top = 32768 if dtype.startswith("int16") else 255
    bound = terms * top * (127 if not dtype.startswith("uint8") else 255) + terms * top * bias_terms
    factor = draw.multiplier(bound, RANGES[dtype.split("_")[0]][1])
    if dtype.startswith("int16"):
        factor = min(factor, 100.0)
    exact = np.log2(factor) == round(np.log2(factor))
    si = 2.0 ** draw.int(-8, -2) if exact else draw.scale()
    so = 2.0 ** draw.int(-8, -2) if exact else draw.scale()
    count = channels if per_channel else 1
    factors = np.full(count, factor)
    if per_channel and not exact:
        factors = factors * 2.0 ** draw.rng.uniform(-3, 0, count)
    elif per_channel:
        factors = factors * 2.0 ** -draw.rng.integers(0, 4, count)
    sw = (factors * so / si).astype(np.float32)
    return float(np.float32(si)), sw, float(np.float32(so)), terms * top * bias_terms


def add_bias(draw, graph, kind, channels, si, sw, bound, odd_axis=False):
    """A bias of `kind`, or None; its scale is the product of the scales of input and weights."""
    if kind is None:
        return None
    if kind == "float32":
        return graph.constant(draw.values([channels], "float32"))
    bias = draw.values([channels], "int32", bound=int(min(bound, 2**30)))
    scale = np.float32(si) * sw
    # Some converters write the weights' axis here, which a vector does not have; TFLM does not mind.
    axis = 3 if odd_axis and draw.chance(0.15) else 0
    return graph.constant(bias.astype(TYPES[kind][1]), Quant(scale, np.zeros(len(scale), np.int64), axis))


def window(draw, padding, size, stride_high=3, dilation_high=3, window_high=5):
    """A window, its stride and dilation, that fit `size` when the padding is VALID."""
    while True:
        k, s = draw.size(1, window_high, 3), draw.int(1, stride_high)
        d = draw.pick([1, 1, 1, draw.int(1, dilation_high)])
        if s > 1 and d > 1:
            d = 1 if draw.chance(0.7) else d
        if out_size(padding, size, k, s, d) > 0:
            return k, s, d


def weights_quant(draw, dtype, sw, axis, odd=False):
    if dtype == "float32":
        return None
    if dtype == "uint8":
        return Quant(sw, draw.int(0, 255))
    return Quant(sw, np.zeros(len(sw), np.int64), axis)


def convolution_tensors(draw, dtype, graph, x_shape, w_shape, terms, channels, axis, y_shape, bias_kinds, order):
    """Input, weights, bias and output of a convolution; `order` puts them into the operator's own order."""
    activation = draw.cycle(["NONE", "RELU", "NONE", "RELU6", "RELU_N1_TO_1"])
    per_channel = dtype not in ("float32", "uint8") and draw.cycle([True, False])
    if dtype == "float32_int8" and axis == 3:
        per_channel = True  # the only hybrid depthwise convolution that LiteRT has
    bias_kind = draw.cycle(bias_kinds)
    if dtype == "float32":
        x = graph.input(x_shape, "float32")
        w = graph.constant(draw.values(w_shape, "float32"))
        y = graph.output(y_shape, "float32")
        bias = add_bias(draw, graph, bias_kind, channels, 1.0, None, 0)
        io_type = "float32"
    elif dtype == "float32_int8":  # hybrid: float activations, int8 weights
        sw = np.asarray([draw.scale() for _ in range(channels if per_channel else 1)], np.float32)
        x = graph.input(x_shape, "float32")
        w = graph.constant(draw.values(w_shape, "int8", bound=127), weights_quant(draw, "int8", sw, axis))
        y = graph.output(y_shape, "float32")
        bias = add_bias(draw, graph, bias_kind, channels, 1.0, None, 0)
        io_type = "float32"
    else:
        si, sw, so, bias_bound = weight_scales(draw, dtype, terms, channels, per_channel)
        w_type = "uint8" if dtype == "uint8" else "int8"
        q = weights_quant(draw, dtype, sw, axis)
        x = graph.input(x_shape, dtype, Quant(si, draw.zero_point(dtype)))
        w = graph.constant(draw.values(w_shape, w_type, bound=127 if w_type == "int8" else None), q)
        y = graph.output(y_shape, dtype, Quant(so, draw.zero_point(dtype)))
        bias = add_bias(draw, graph, bias_kind, channels, si, sw, bias_bound, dtype == "int8")
        io_type = dtype
    graph.op_inputs = order(x, w, bias)
    parameters = {
        "input": x_shape,
        "weights": w_shape,
        "output": y_shape,
        "activation": activation,
        "per_channel": bool(per_channel),
        "bias": bias_kind or "none",
    }
    return activation, [draw.inputs(x_shape, io_type)], y, parameters


def bias_kinds_of(dtype):
    return {
        "int8": ["int32", "int32", None],
        "uint8": ["int32"],
        "int16": ["int64", None, "int32"],
        "float32_int8": ["float32"],
    }.get(dtype, ["float32", "float32", None])


def with_bias(x, w, bias):
    return [x, w] if bias is None else [x, w, bias]


@operator("CONV_2D", tflm="int8 int16 float32", litert="uint8 float32_int8")
def conv_2d(draw, dtype):
    padding = draw.cycle(["SAME", "VALID"])
    hybrid = dtype == "float32_int8"
    groups = draw.cycle([1, 1, 1, 2]) if dtype in ("int8", "int16", "float32") else 1
    batch = draw.pick([1, 1, 1, 2])
    h, w = draw.size(1, 10, 5), draw.size(1, 10, 5)
    kh, sh, dh = window(draw, padding, h)
    kw, sw, dw = window(draw, padding, w)
    if hybrid:
        dh = dw = 1
    if hybrid and padding == "VALID":
        kh, kw = min(kh, h), min(kw, w)
    ci, co = draw.size(1, 9, 3) * groups, draw.size(1, 9, 4) * groups
    x_shape, w_shape = [batch, h, w, ci], [co, kh, kw, ci // groups]
    y_shape = [batch, out_size(padding, h, kh, sh, dh), out_size(padding, w, kw, sw, dw), co]
    model = Model()
    terms = kh * kw * ci // groups
    activation, inputs, y, parameters = convolution_tensors(
        draw, dtype, model.main, x_shape, w_shape, terms, co, 0, y_shape, bias_kinds_of(dtype), with_bias
    )
    table = options(
        "Conv2D",
        padding=PADDINGS[padding],
        strideH=sh,
        strideW=sw,
        dilationHFactor=dh,
        dilationWFactor=dw,
        fusedActivationFunction=ACTIVATIONS[activation],
    )
    if dtype == "int16" and parameters["bias"] == "none" and draw.chance(0.5) and terms < 300:
        table.quantizedBiasType = schema.TensorType.INT32
        parameters["accumulator"] = "int32"
    model.main.op("CONV_2D", model.main.op_inputs, [y], table)
    model.versions(LITERT_VERSIONS.get(dtype, 1))
    parameters |= {"padding": padding, "stride": [sh, sw], "dilation": [dh, dw], "groups": groups}
    return Case(model, inputs, parameters)


@operator("DEPTHWISE_CONV_2D", tflm="int8 int16 float32", litert="uint8 float32_int8")
def depthwise_conv_2d(draw, dtype):
    padding = draw.cycle(["SAME", "VALID"])
    batch = draw.pick([1, 1, 1, 2])
    h, w = draw.size(1, 10, 5), draw.size(1, 10, 5)
    kh, sh, dh = window(draw, padding, h)
    kw, sw, dw = window(draw, padding, w)
    if dtype in ("float32_int8", "uint8"):
        sw = sh  # LiteRT wants equal strides of its depthwise convolution in places
    if dtype == "float32_int8":
        dh = dw = 1
    if padding == "VALID" and min(out_size(padding, h, kh, sh, dh), out_size(padding, w, kw, sw, dw)) <= 0:
        kh, kw, sh, sw, dh, dw = 1, 1, 1, 1, 1, 1
    ci, multiplier = draw.size(1, 9, 4), draw.pick([1, 1, 2, 3])
    co = ci * multiplier
    x_shape, w_shape = [batch, h, w, ci], [1, kh, kw, co]
    y_shape = [batch, out_size(padding, h, kh, sh, dh), out_size(padding, w, kw, sw, dw), co]
    model = Model()
    kinds = ["int64", None] if dtype == "int16" else bias_kinds_of(dtype)
    activation, inputs, y, parameters = convolution_tensors(
        draw, dtype, model.main, x_shape, w_shape, kh * kw, co, 3, y_shape, kinds, with_bias
    )
    table = options(
        "DepthwiseConv2D",
        padding=PADDINGS[padding],
        strideH=sh,
        strideW=sw,
        dilationHFactor=dh,
        dilationWFactor=dw,
        depthMultiplier=multiplier,
        fusedActivationFunction=ACTIVATIONS[activation],
    )
    model.main.op("DEPTHWISE_CONV_2D", model.main.op_inputs, [y], table)
    model.versions({"float32_int8": 6}.get(dtype, 2))
    parameters |= {"padding": padding, "stride": [sh, sw], "dilation": [dh, dw], "multiplier": multiplier}
    return Case(model, inputs, parameters)


@operator("TRANSPOSE_CONV", tflm="int8 int16 float32", litert="uint8")
def transpose_conv(draw, dtype):
    padding = draw.cycle(["SAME", "VALID"])
    batch = draw.pick([1, 1, 2])
    h, w = draw.size(1, 5, 3), draw.size(1, 5, 3)
    kh, kw, sh, sw = draw.size(1, 4, 3), draw.size(1, 4, 3), draw.int(1, 3), draw.int(1, 3)
    if padding == "SAME":
        oh, ow = h * sh - draw.int(0, sh - 1), w * sw - draw.int(0, sw - 1)
    else:
        oh, ow = (h - 1) * sh + kh, (w - 1) * sw + kw
        if kh < sh and draw.chance(0.5):
            oh = h * sh
    ci, co = draw.size(1, 7, 3), draw.size(1, 7, 3)
    x_shape, w_shape, y_shape = [batch, h, w, ci], [co, kh, kw, ci], [batch, oh, ow, co]
    model = Model()
    shape = model.main.constant(np.array(y_shape, np.int32))
    kinds = ["int64", None] if dtype == "int16" else bias_kinds_of(dtype)
    activation, inputs, y, parameters = convolution_tensors(
        draw,
        dtype,
        model.main,
        x_shape,
        w_shape,
        kh * kw * ci,
        co,
        0,
        y_shape,
        kinds,
        lambda x, w, bias: [shape, w, x] if bias is None else [shape, w, x, bias],
    )
    table = options(
        "TransposeConv",
        padding=PADDINGS[padding],
        strideH=sh,
        strideW=sw,
        fusedActivationFunction=ACTIVATIONS[activation],
    )
    model.main.op("TRANSPOSE_CONV", model.main.op_inputs, [y], table)
    model.versions(4 if activation != "NONE" else 3)
    return Case(model, inputs, parameters | {"padding": padding, "stride": [sh, sw]})


@operator("FULLY_CONNECTED", tflm="int8 int16 float32", litert="uint8 float32_int8")
def fully_connected(draw, dtype):
    depth, units = draw.size(1, 70, 9), draw.size(1, 20, 5)
    keep = draw.cycle([False, False, True])
    lead = [draw.size(1, 3, 2) for _ in range(draw.int(1, 3) if keep else 1)]
    if not keep and draw.chance(0.3) and depth % 2 == 0 and dtype != "float32_int8":
        x_shape = [lead[0], 2, depth // 2]  # flattened by the operator
    else:
        x_shape = [*lead, depth]
    y_shape = [*lead, units]
    model = Model()
    kinds = {"uint8": ["int32", None], "float32_int8": ["float32", None]}.get(dtype, bias_kinds_of(dtype))
    activation, inputs, y, parameters = convolution_tensors(
        draw, dtype, model.main, x_shape, [units, depth], depth, units, 0, y_shape, kinds, with_bias
    )
    if parameters["bias"] == "none" and draw.chance(0.5):
        model.main.op_inputs.append(-1)
    if dtype == "int8" and not parameters["per_channel"] and draw.chance(0.3):
        quant = model.main.sub.tensors[model.main.op_inputs[1]].quantization
        quant.zeroPoint = [draw.int(-128, 127)]
        parameters["weights_zero_point"] = quant.zeroPoint[0]
    table = options("FullyConnected", keepNumDims=keep, fusedActivationFunction=ACTIVATIONS[activation])
    if dtype == "float32_int8":
        table.asymmetricQuantizeInputs = parameters["asymmetric_inputs"] = draw.cycle([True, False])
    model.main.op("FULLY_CONNECTED", model.main.op_inputs, [y], table)
    model.versions({"float32_int8": 9, "uint8": 6}.get(dtype, 5))
    # LiteRT's reference kernel rounds once, from double precision; its other kernels and TFLM round twice.
    steps = 1 if dtype == "uint8" else 0
    return Case(model, inputs, parameters | {"keep_num_dims": keep}, steps=steps)


def pool(draw, dtype, name):
    padding = draw.cycle(["SAME", "VALID"])
    activation = draw.cycle(["NONE", "RELU", "NONE", "RELU6", "RELU_N1_TO_1"])
    batch, depth = draw.pick([1, 1, 2]), draw.size(1, 9, 4)
    h, w = draw.size(1, 12, 6), draw.size(1, 12, 6)
    fh, sh, _ = window(draw, padding, h, dilation_high=1, window_high=7)
    fw, sw, _ = window(draw, padding, w, dilation_high=1, window_high=7)
    if draw.chance(0.2) and padding == "VALID":
        fh, fw = h, w  # global pooling
    quant = draw.quant(dtype)
    y_shape = [batch, out_size(padding, h, fh, sh), out_size(padding, w, fw, sw), depth]
    model = Model()
    x = model.main.input([batch, h, w, depth], dtype, quant)
    y = model.main.output(y_shape, dtype, quant)
    table = options(
        "Pool2D",
        padding=PADDINGS[padding],
        strideH=sh,
        strideW=sw,
        filterHeight=fh,
        filterWidth=fw,
        fusedActivationFunction=ACTIVATIONS[activation],
    )
    model.main.op(name, [x], [y], table)
    parameters = {
        "input": [batch, h, w, depth],
        "output": y_shape,
        "padding": padding,
        "window": [fh, fw],
        "stride": [sh, sw],
        "activation": activation,
    }
    return Case(model, [draw.inputs([batch, h, w, depth], dtype)], parameters)


@operator("AVERAGE_POOL_2D", tflm="int8 int16 float32", litert="uint8")
def average_pool_2d(draw, dtype):
    return pool(draw, dtype, "AVERAGE_POOL_2D")


@operator("MAX_POOL_2D", tflm="int8 int16 float32", litert="uint8")
def max_pool_2d(draw, dtype):
    return pool(draw, dtype, "MAX_POOL_2D")
