"""Operators that move values without changing them."""

import numpy as np

from .case import Case, operator
from .model import Model, options, schema

ALL = "int8 int16 int32 float32 bool"


def moved(draw, dtype, name, x_shape, outputs, extra, table=None, parameters=None, quant=None):
    """One input, constant operands `extra` (arrays), outputs of the given shapes; all share one quantization."""
    quant = quant or draw.quant(dtype)
    model = Model()
    x = model.main.input(x_shape, dtype, quant)
    constants = [model.main.constant(a) for a in extra]
    ys = [model.main.output(shape, dtype, quant) for shape in outputs]
    first = name == "SPLIT"
    model.main.op(name, [*constants, x] if first else [x, *constants], ys, table)
    return Case(model, [draw.inputs(x_shape, dtype)], {"input": x_shape} | (parameters or {}), tolerance=0.0)


def i32(values):
    return np.array(values, np.int32)


@operator("RESHAPE", tflm=ALL + " uint8", extra="int64")
def reshape(draw, dtype):
    x_shape = draw.shape(1, 4)
    count = int(np.prod(x_shape))
    pieces, out = count, []
    while len(out) < 3:
        divisors = [d for d in range(1, pieces + 1) if pieces % d == 0]
        out.append(draw.pick(divisors))
        pieces //= out[-1]
    out.append(pieces)
    out = [d for d in out if d != 1 or draw.chance(0.5)] or [count]
    wanted = list(out)
    if draw.cycle([True, False]):
        wanted[draw.int(0, len(wanted) - 1)] = -1
    source = draw.cycle(["operand", "options", "both"])
    table = options("Reshape", newShape=wanted) if source != "operand" else None
    extra = [i32(wanted)] if source != "options" else []
    return moved(draw, dtype, "RESHAPE", x_shape, [out], extra, table, {"output": out, "shape_from": source})


@operator("SQUEEZE", tflm=ALL + " uint8")
def squeeze(draw, dtype):
    core = draw.shape(1, 3)
    x_shape = list(core)
    for _ in range(draw.int(1, 2)):
        x_shape.insert(draw.int(0, len(x_shape)), 1)
    ones = [i for i, d in enumerate(x_shape) if d == 1]
    named = sorted({draw.pick(ones), draw.pick(ones)}) if draw.cycle([True, False]) else []
    gone = named or ones
    out = [d for i, d in enumerate(x_shape) if i not in gone]
    dims = [d - len(x_shape) if draw.chance(0.3) else d for d in named]
    table = options("Squeeze", squeezeDims=dims)
    return moved(draw, dtype, "SQUEEZE", x_shape, [out], [], table, {"output": out, "dims": dims})


@operator("EXPAND_DIMS", tflm="int8 int16 float32", extra="int32 uint8")
def expand_dims(draw, dtype):
    x_shape = draw.shape(1, 3)
    axis = draw.int(-len(x_shape) - 1, len(x_shape))
    out = list(x_shape)
    out.insert(axis if axis >= 0 else len(x_shape) + 1 + axis, 1)
    return moved(draw, dtype, "EXPAND_DIMS", x_shape, [out], [i32([axis])], None, {"axis": axis})


def paddings(draw, shape, limit=3, image=False):
    """Pairs (before, after) per axis; for some cases zeros on the outer axes."""
    pads = [[draw.int(0, limit), draw.int(0, limit)] for _ in shape]
    if image and len(shape) == 4:
        pads[0] = pads[3] = [0, 0]
    return pads, [d + a + b for d, (a, b) in zip(shape, pads)]


@operator("PAD", tflm="int8 int16 int32 float32", litert="uint8")
def pad(draw, dtype):
    x_shape = draw.shape(1, 4, 5)
    pads, out = paddings(draw, x_shape, 2, draw.chance(0.5))
    kind = np.int64 if draw.cycle([False, False, True]) and dtype == "uint8" else np.int32
    return moved(draw, dtype, "PAD", x_shape, [out], [np.array(pads, kind)], None, {"paddings": pads})


@operator("PADV2", tflm="int8 int16 int32 float32", litert="uint8")
def pad_v2(draw, dtype):
    x_shape = draw.shape(1, 4, 5)
    pads, out = paddings(draw, x_shape, 2, draw.chance(0.5))
    quant = draw.quant(dtype)
    model = Model()
    x = model.main.input(x_shape, dtype, quant)
    p = model.main.constant(i32(pads))
    value = draw.values([1], dtype)
    inputs = [draw.inputs(x_shape, dtype)]
    variable = draw.cycle([False, False, False, True]) and dtype != "uint8"
    if variable:
        c = model.main.input([1], dtype, quant)
        inputs.append(draw.inputs([1], dtype))
    else:
        c = model.main.constant(value, quant)
    y = model.main.output(out, dtype, quant)
    model.main.op("PADV2", [x, p, c], [y])
    return Case(model, inputs, {"input": x_shape, "paddings": pads, "constant": not variable}, tolerance=0.0)


@operator("MIRROR_PAD", tflm="int8 float32", litert="uint8")
def mirror_pad(draw, dtype):
    mode = draw.cycle(["REFLECT", "SYMMETRIC"])
    x_shape = [d + 1 for d in draw.shape(1, 4, 4)]
    most = 1 if mode == "REFLECT" else 0
    pads = [[draw.int(0, min(3, d - most)), draw.int(0, min(3, d - most))] for d in x_shape]
    out = [d + a + b for d, (a, b) in zip(x_shape, pads)]
    table = options("MirrorPad", mode=getattr(schema.MirrorPadMode, mode))
    kind = np.int64 if draw.cycle([False, False, True]) else np.int32
    parameters = {"paddings": pads, "mode": mode, "paddings_dtype": np.dtype(kind).name}
    return moved(draw, dtype, "MIRROR_PAD", x_shape, [out], [np.array(pads, kind)], table, parameters)


@operator("CONCATENATION", tflm=ALL, tflm_extra="int64", litert="uint8", extra="uint8_rescaled")
def concatenation(draw, dtype):
    rescaled = dtype == "uint8_rescaled"
    dtype = dtype.split("_")[0]
    shape = draw.shape(1, 4, 5)
    axis = draw.int(0, len(shape) - 1)
    count = draw.cycle([2, 3, 1, 4, 7])
    quant = draw.quant(dtype)
    model = Model()
    indices, inputs, total = [], [], 0
    constants = []
    for i in range(count):
        part = list(shape)
        part[axis] = draw.size(1, 5, 3)
        total += part[axis]
        own = draw.quant(dtype) if rescaled and i else quant
        if i and draw.chance(0.25):
            constants.append(i)
            indices.append(model.main.constant(draw.values(part, dtype), own))
        else:
            indices.append(model.main.input(part, dtype, own))
            inputs.append(draw.inputs(part, dtype))
    if count > 1 and draw.chance(0.15) and not rescaled:
        indices.append(indices[0])  # the same tensor twice
        total += model.main.sub.tensors[indices[0]].shape[axis]
    out = list(shape)
    out[axis] = total
    y = model.main.output(out, dtype, quant)
    named = axis - len(shape) if draw.chance(0.3) else axis
    model.main.op("CONCATENATION", indices, [y], options("Concatenation", axis=named))
    parameters = {"output": out, "axis": named, "count": len(indices), "constants": constants}
    return Case(model, inputs, parameters, tolerance=0.0)


@operator("SPLIT", tflm="int8 int16 int32 float32", litert="uint8")
def split(draw, dtype):
    x_shape = draw.shape(1, 4, 4)
    axis, count = draw.int(0, len(x_shape) - 1), draw.int(1, 4)
    part = list(x_shape)
    x_shape[axis] *= count
    named = axis - len(x_shape) if draw.chance(0.3) else axis
    table = options("Split", numSplits=count)
    parameters = {"axis": named, "count": count}
    return moved(draw, dtype, "SPLIT", x_shape, [part] * count, [i32([named])], table, parameters)


@operator("SPLIT_V", tflm="int8 int16 int32 float32", litert="uint8")
def split_v(draw, dtype):
    x_shape = draw.shape(1, 4, 4)
    axis = draw.int(0, len(x_shape) - 1)
    sizes = [draw.int(1, 4) for _ in range(draw.int(1, 4))]
    x_shape[axis] = sum(sizes)
    outs = [x_shape[:axis] + [s] + x_shape[axis + 1 :] for s in sizes]
    stated = list(sizes)
    if draw.cycle([False, True]):
        stated[draw.int(0, len(sizes) - 1)] = -1
    named = axis - len(x_shape) if draw.chance(0.3) else axis
    table = options("SplitV", numSplits=len(sizes))
    parameters = {"axis": named, "sizes": stated}
    return moved(draw, dtype, "SPLIT_V", x_shape, outs, [i32(stated), i32([named])], table, parameters)


@operator("SLICE", tflm=ALL, litert="uint8")
def slice_(draw, dtype):
    x_shape = draw.shape(1, 4)
    begin = [draw.int(0, d - 1) for d in x_shape]
    size = [draw.int(1, d - b) for d, b in zip(x_shape, begin)]
    stated = [-1 if b + s == d and draw.chance(0.6) else s for d, b, s in zip(x_shape, begin, size)]
    kind = draw.cycle([np.int32, np.int32, np.int64])
    parameters = {"begin": begin, "size": stated, "index_dtype": np.dtype(kind).name}
    return moved(
        draw, dtype, "SLICE", x_shape, [size], [np.array(begin, kind), np.array(stated, kind)], None, parameters
    )


def strided_range(begin, end, stride, dim, begin_masked, end_masked):
    """The indices that one axis of a strided slice visits."""
    b = None if begin_masked else begin
    e = None if end_masked else end
    return list(range(dim))[slice(b, e, stride)]


@operator("STRIDED_SLICE", tflm=ALL, litert="uint8")
def strided_slice(draw, dtype):
    while True:
        x_shape = draw.shape(1, 4, 7, 4)
        rank = len(x_shape)
        strides = [draw.pick([1, 1, 2, 3, -1, -2]) for _ in x_shape]
        begin = [draw.int(-d, d - 1) for d in x_shape]
        end = [draw.int(-d - 2, d + 2) for d in x_shape]
        begin_mask = sum(1 << i for i in range(rank) if draw.chance(0.3))
        end_mask = sum(1 << i for i in range(rank) if draw.chance(0.4))
        shrink_mask = sum(1 << i for i in range(rank) if draw.chance(0.15))
        out = []
        for i, d in enumerate(x_shape):
            if shrink_mask >> i & 1:
                strides[i], begin_mask = 1, begin_mask & ~(1 << i)
                continue
            visited = strided_range(
                begin[i], end[i], strides[i], d, begin_mask >> i & 1, end_mask >> i & 1
            )
            out.append(len(visited))
        if 0 not in out:
            break
    table = options("StridedSlice", beginMask=begin_mask, endMask=end_mask, shrinkAxisMask=shrink_mask)
    parameters = {
        "begin": begin,
        "end": end,
        "strides": strides,
        "masks": {"begin": begin_mask, "end": end_mask, "shrink": shrink_mask},
        "output": out,
    }
    extra = [i32(begin), i32(end), i32(strides)]
    return moved(draw, dtype, "STRIDED_SLICE", x_shape, [out], extra, table, parameters)


@operator("GATHER", tflm="int8 float32", litert="uint8", extra="int16 int32 bool")
def gather(draw, dtype):
    x_shape = draw.shape(1, 4, 5)
    axis = draw.int(0, len(x_shape) - 1)
    batch = draw.int(0, min(axis, 2)) if draw.cycle([False, True]) else 0
    if dtype not in ("int8", "float32"):
        batch = 0
    c_shape = x_shape[:batch] + [draw.size(1, 4, 3) for _ in range(draw.int(0 if batch else 1, 2))]
    if not c_shape:
        c_shape = [draw.size(1, 4, 3)]
    out = x_shape[:axis] + c_shape[batch:] + x_shape[axis + 1 :]
    quant = draw.quant(dtype)
    model = Model()
    x = model.main.input(x_shape, dtype, quant)
    inputs = [draw.inputs(x_shape, dtype)]
    constant = draw.cycle([True, False])
    if constant:
        c = model.main.constant(draw.rng.integers(0, x_shape[axis], c_shape, np.int32))
    else:
        c = model.main.input(c_shape, "int32")
        inputs.append(draw.rng.integers(0, x_shape[axis], [draw.samples(), *c_shape], np.int32))
    y = model.main.output(out, dtype, quant)
    named = axis - len(x_shape) if draw.chance(0.3) else axis
    model.main.op("GATHER", [x, c], [y], options("Gather", axis=named, batchDims=batch))
    if batch:
        model.versions(5)
    parameters = {"input": x_shape, "coords": c_shape, "axis": named, "batch_dims": batch, "constant": constant}
    return Case(model, inputs, parameters, tolerance=0.0)


@operator("TRANSPOSE", tflm="int8 int16 float32", litert="uint8", extra="int32 bool")
def transpose(draw, dtype):
    x_shape = draw.shape(1, 4)
    order = draw.permutation(len(x_shape))
    out = [x_shape[i] for i in order]
    return moved(draw, dtype, "TRANSPOSE", x_shape, [out], [i32(order)], None, {"order": order})


@operator("PACK", tflm="int8 int16 int32 float32", tflm_extra="int64", litert="uint8")
def pack(draw, dtype):
    shape, count = draw.shape(1, 3), draw.int(1, 4)
    axis = draw.int(-len(shape) - 1, len(shape))
    out = list(shape)
    out.insert(axis if axis >= 0 else len(shape) + 1 + axis, count)
    quant = draw.quant(dtype)
    model = Model()
    indices, inputs, constants = [], [], []
    for i in range(count):
        if i and draw.chance(0.25):
            constants.append(i)
            indices.append(model.main.constant(draw.values(shape, dtype), quant))
        else:
            indices.append(model.main.input(shape, dtype, quant))
            inputs.append(draw.inputs(shape, dtype))
    y = model.main.output(out, dtype, quant)
    model.main.op("PACK", indices, [y], options("Pack", valuesCount=count, axis=axis))
    return Case(model, inputs, {"shape": shape, "axis": axis, "count": count, "constants": constants}, tolerance=0.0)


@operator("UNPACK", tflm="int8 int16 int32 float32", litert="uint8")
def unpack(draw, dtype):
    x_shape = draw.shape(2, 4, 4)
    axis = draw.int(0, len(x_shape) - 1)
    out = x_shape[:axis] + x_shape[axis + 1 :]
    named = axis - len(x_shape) if draw.chance(0.3) else axis
    table = options("Unpack", num=x_shape[axis], axis=named)
    return moved(draw, dtype, "UNPACK", x_shape, [out] * x_shape[axis], [], table, {"axis": named})


@operator("SPACE_TO_BATCH_ND", tflm="int8 float32", litert="uint8_padded int8_padded float32_padded")
def space_to_batch_nd(draw, dtype):
    """TFLM pads with a value that it never sets, so padded cases come from LiteRT, which pads with the zero point."""
    dtype, _, padded = dtype.partition("_")
    spatial = draw.cycle([2, 1])
    block = [draw.int(1, 3) for _ in range(spatial)]
    tail = draw.size(1, 5, 3)
    batch = draw.int(1, 2)
    size = [draw.size(1, 6, 4) for _ in range(spatial)]
    pads = []
    if not padded:
        size = [s * b for s, b in zip(size, block)]
    for s, b in zip(size, block):
        before = draw.int(0, 2) if padded else 0
        pads.append([before, -(s + before) % b + (b * draw.int(0, 1) if padded else 0)])
    out = [batch * int(np.prod(block))]
    out += [(s + a + z) // b for s, (a, z), b in zip(size, pads, block)] + [tail]
    x_shape = [batch, *size, tail]
    extra = [i32(block), i32(pads)]
    parameters = {"block": block, "paddings": pads, "output": out}
    return moved(draw, dtype, "SPACE_TO_BATCH_ND", x_shape, [out], extra, None, parameters)


@operator("BATCH_TO_SPACE_ND", tflm="int8 float32", litert="uint8")
def batch_to_space_nd(draw, dtype):
    spatial = draw.cycle([2, 1])
    block = [draw.int(1, 3) for _ in range(spatial)]
    tail, batch = draw.size(1, 5, 3), draw.int(1, 2)
    size = [draw.size(1, 4, 3) for _ in range(spatial)]
    crops = []
    for s, b in zip(size, block):
        before = draw.int(0, min(2, s * b - 1))
        crops.append([before, draw.int(0, min(2, s * b - 1 - before))])
    out = [batch] + [s * b - a - z for s, b, (a, z) in zip(size, block, crops)] + [tail]
    x_shape = [batch * int(np.prod(block)), *size, tail]
    extra = [i32(block), i32(crops)]
    parameters = {"block": block, "crops": crops, "output": out}
    return moved(draw, dtype, "BATCH_TO_SPACE_ND", x_shape, [out], extra, None, parameters)


@operator("DEPTH_TO_SPACE", tflm="int8 float32", litert="uint8")
def depth_to_space(draw, dtype):
    block, depth = draw.int(1, 3), draw.size(1, 4, 2)
    n, h, w = draw.int(1, 2), draw.size(1, 4, 3), draw.size(1, 4, 3)
    out = [n, h * block, w * block, depth]
    table = options("DepthToSpace", blockSize=block)
    return moved(draw, dtype, "DEPTH_TO_SPACE", [n, h, w, depth * block**2], [out], [], table, {"block": block})


@operator("SPACE_TO_DEPTH", tflm_extra="int8 float32", extra="uint8")
def space_to_depth(draw, dtype):
    block, depth = draw.int(1, 3), draw.size(1, 4, 2)
    n, h, w = draw.int(1, 2), draw.size(1, 4, 3), draw.size(1, 4, 3)
    out = [n, h, w, depth * block**2]
    table = options("SpaceToDepth", blockSize=block)
    return moved(draw, dtype, "SPACE_TO_DEPTH", [n, h * block, w * block, depth], [out], [], table, {"block": block})
