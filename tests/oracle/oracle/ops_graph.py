"""Random small networks: many operators whose tensors have several readers, views and lifetimes that overlap."""

import numpy as np

from .case import Case, operator
from .model import ACTIVATIONS, PADDINGS, Model, Quant, options
from .ops_matrix import out_size

LIMIT = 400  # most elements of one tensor


class Net:
    """A network under construction: a list of tensors (index, shape, quantization) that later layers may read."""

    def __init__(self, draw, dtype):
        self.draw, self.dtype = draw, dtype
        self.model = Model()
        self.g = self.model.main
        self.common = draw.quant(dtype, 0.02, 0.1)  # shared by many tensors, so that they can be concatenated
        self.tensors, self.layers, self.used = [], [], set()

    def fresh_quant(self):
        if self.dtype == "float32":
            return None
        return self.common if self.draw.chance(0.5) else self.draw.quant(self.dtype, 0.02, 0.1)

    def layer(self, name, inputs, shape, quant, table=None, extra=()):
        """Appends an operator with one output and makes its output readable."""
        y = self.g.tensor(shape, self.dtype, quant)
        self.g.op(name, [*(t[0] for t in inputs), *extra], [y], table)
        self.used.update(t[0] for t in inputs)
        self.layers.append(name)
        self.tensors.append((y, list(shape), quant))

    def some(self):
        """A tensor to read: mostly one of the newest."""
        recent = self.tensors[-3:] if self.draw.chance(0.6) else self.tensors
        return self.draw.pick(recent)

    def activation(self):
        return ACTIVATIONS[self.draw.pick(["NONE", "NONE", "RELU", "RELU6"])]

    def weighted(self, x, w_shape, channels, axis, terms):
        """Weights and bias whose accumulators land in the output's range."""
        if self.dtype == "float32":
            w = self.draw.values(w_shape, "float32") / np.sqrt(terms)
            bias = self.draw.values([channels], "float32")
            return None, [self.g.constant(w.astype(np.float32)), self.g.constant(bias)]
        quant = self.fresh_quant()
        per_channel = self.draw.chance(0.7)
        factors = self.draw.rng.uniform(0.2, 1, channels if per_channel else 1) * 2 / (np.sqrt(terms) * 73)
        sw = (factors * quant.scale / x[2].scale).astype(np.float32)
        w = self.g.constant(self.draw.values(w_shape, "int8", bound=127), Quant(sw, np.zeros(len(sw), int), axis))
        values = self.draw.values([channels], "int32", bound=int(2000 * np.sqrt(terms)))
        bias = values.astype(np.int64 if self.dtype == "int16" else np.int32)
        scales = np.float32(x[2].scale) * sw
        return quant, [w, self.g.constant(bias, Quant(scales, np.zeros(len(sw), int)))]

    def convolution(self):
        x = self.some()
        _, h, w, c = x[1]
        padding = self.draw.pick(["SAME", "SAME", "VALID"])
        k = self.draw.pick([1, 3]) if padding == "SAME" else self.draw.int(1, min(3, h, w))
        s = self.draw.pick([1, 1, 2])
        oh, ow = out_size(padding, h, k, s), out_size(padding, w, k, s)
        if self.draw.chance(0.6):
            co = self.draw.size(1, 8)
            quant, extra = self.weighted(x, [co, k, k, c], co, 0, k * k * c)
            table = options("Conv2D", padding=PADDINGS[padding], strideH=s, strideW=s)
            name = "CONV_2D"
        else:
            co = c
            quant, extra = self.weighted(x, [1, k, k, c], c, 3, k * k)
            table = options("DepthwiseConv2D", padding=PADDINGS[padding], strideH=s, strideW=s, depthMultiplier=1)
            name = "DEPTHWISE_CONV_2D"
        table.fusedActivationFunction = self.activation()
        self.layer(name, [x], [1, oh, ow, co], quant, table, extra)

    def arithmetic(self):
        x = self.some()
        same = [t for t in self.tensors if t[1] == x[1]]
        y = self.draw.pick(same)
        name, kind = self.draw.pick([("ADD", "Add"), ("ADD", "Add"), ("SUB", "Sub"), ("MUL", "Mul")])
        quant = self.fresh_quant()
        self.layer(name, [x, y], x[1], quant, options(kind, fusedActivationFunction=self.activation()))

    def unary(self):
        x = self.some()
        name = self.draw.pick(["RELU", "LOGISTIC", "TANH", "LEAKY_RELU", "HARD_SWISH"])
        if self.dtype == "int16":
            name = self.draw.pick(["RELU", "LEAKY_RELU"])
        quant, table = self.fresh_quant(), None
        if quant is not None and name in ("LOGISTIC", "TANH"):
            quant = Quant(2.0**-8, -128) if name == "LOGISTIC" else Quant(2.0**-7, 0)
        if name == "LEAKY_RELU":
            table = options("LeakyRelu", alpha=float(np.float32(0.2)))
        self.layer(name, [x], x[1], quant, table)

    def pool(self):
        x = self.some()
        _, h, w, c = x[1]
        k, s = self.draw.int(1, min(3, h, w)), self.draw.pick([1, 2])
        name = self.draw.pick(["MAX_POOL_2D", "AVERAGE_POOL_2D"])
        table = options("Pool2D", padding=PADDINGS["VALID"], strideH=s, strideW=s, filterHeight=k, filterWidth=k)
        shape = [1, out_size("VALID", h, k, s), out_size("VALID", w, k, s), c]
        self.layer(name, [x], shape, x[2], table)

    def concat(self):
        x = self.some()
        axis = self.draw.pick([3, 3, 1, 2])

        def fits(t):
            return t[2] is x[2] and all(a == b for i, (a, b) in enumerate(zip(t[1], x[1])) if i != axis)

        parts = [self.draw.pick([t for t in self.tensors if fits(t)]) for _ in range(self.draw.int(1, 2))]
        parts.insert(self.draw.int(0, len(parts)), x)
        shape = list(x[1])
        shape[axis] = sum(t[1][axis] for t in parts)
        if np.prod(shape) <= LIMIT:
            self.layer("CONCATENATION", parts, shape, x[2], options("Concatenation", axis=axis))

    def pad(self):
        x = self.some()
        pads = [[0, 0], [self.draw.int(0, 1), self.draw.int(0, 2)], [self.draw.int(0, 2), self.draw.int(0, 1)], [0, 0]]
        shape = [d + a + b for d, (a, b) in zip(x[1], pads)]
        if np.prod(shape) <= LIMIT:
            self.layer("PAD", [x], shape, x[2], None, [self.g.constant(np.array(pads, np.int32))])

    def cut(self):
        x = self.some()
        begin = [0] + [self.draw.int(0, d - 1) for d in x[1][1:]]
        end = [1] + [self.draw.int(b + 1, d) for d, b in zip(x[1][1:], begin[1:])]
        extra = [self.g.constant(np.array(v, np.int32)) for v in (begin, end, [1, 1, 1, 1])]
        shape = [e - b for b, e in zip(begin, end)]
        self.layer("STRIDED_SLICE", [x], shape, x[2], options("StridedSlice"), extra)

    def split(self):
        x = self.some()
        axis = self.draw.pick([3, 2, 1])
        if x[1][axis] < 2:
            return
        first = self.draw.int(1, x[1][axis] - 1)
        outs = []
        for size in (first, x[1][axis] - first):
            shape = list(x[1])
            shape[axis] = size
            outs.append((self.g.tensor(shape, self.dtype, x[2]), shape, x[2]))
        extra = [self.g.constant(np.array(v, np.int32)) for v in ([first, x[1][axis] - first], axis)]
        self.g.op("SPLIT_V", [x[0], *extra], [t[0] for t in outs], options("SplitV", numSplits=2))
        self.used.add(x[0])
        self.layers.append("SPLIT_V")
        self.tensors += outs

    def view(self):
        x = self.some()
        _, h, w, c = x[1]
        shape = self.draw.pick([[1, w, h, c], [1, 1, h * w, c], [1, h, 1, w * c]])
        self.layer("RESHAPE", [x], shape, x[2], None, [self.g.constant(np.array(shape, np.int32))])

    def swap(self):
        x = self.some()
        order = [0, *(1 + i for i in self.draw.permutation(3))]
        shape = [x[1][i] for i in order]
        self.layer("TRANSPOSE", [x], shape, x[2], None, [self.g.constant(np.array(order, np.int32))])

    def requantize(self):
        x = self.some()
        if self.dtype != "float32":
            self.layer("QUANTIZE", [x], x[1], self.fresh_quant())


KINDS = (
    [Net.convolution] * 4
    + [Net.arithmetic] * 4
    + [Net.concat] * 3
    + [Net.unary, Net.pool, Net.pad, Net.cut, Net.split, Net.view, Net.swap, Net.requantize]
)


@operator("GRAPH", tflm="int8 int16 float32")
def graph(draw, dtype):
    net = Net(draw, dtype)
    shape = [1, draw.size(2, 7, 4), draw.size(2, 7, 4), draw.size(1, 6, 3)]
    net.tensors.append((net.g.input(shape, dtype, net.common), shape, net.common))
    if draw.chance(0.3):
        net.tensors.append((net.g.input(shape, dtype, net.common), shape, net.common))
    inputs = len(net.tensors)
    wanted = draw.int(3, 6) if draw.tiny else draw.int(4, 16)
    while len(net.layers) < wanted:
        draw.pick(KINDS)(net)
    # Everything that nobody reads is an output; now and then an inner tensor is one as well.
    made = net.tensors[inputs:]
    ends = [t[0] for t in made if t[0] not in net.used]
    inner = [t[0] for t in made if t[0] in net.used and draw.chance(0.1)]
    keep = ends if draw.chance(0.7) or len(ends) < 2 else ends[1:]  # leaves a result that is of no use
    net.g.sub.outputs = keep + inner
    values = [draw.inputs(shape, dtype) for _ in range(inputs)]
    return Case(net.model, values, {"input": shape, "layers": net.layers})
