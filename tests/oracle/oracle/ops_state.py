"""Operators and small models that keep a state from run to run."""

import numpy as np

from .case import Case, operator
from .model import ACTIVATIONS, Model, Quant, options, schema

TANH = schema.ActivationFunctionType.TANH


def sequences(draw, shape, dtype, **limits):
    """Input of a stateful model: sequence, step, shape."""
    return draw.values([1 if draw.tiny else 2, 3 if draw.tiny else 6, *shape], dtype, **limits)


@operator("SVDF", tflm="int8 int8_int8 float32")
def svdf(draw, dtype):
    """`int8`: int16 state and time weights; `int8_int8`: int8 state and time weights."""
    batch, depth = draw.pick([1, 1, 2]), draw.size(1, 20, 5)
    rank, units, memory = draw.int(1, 3), draw.size(1, 8, 3), draw.size(1, 8, 4)
    filters = rank * units
    model = Model()
    g = model.main
    if dtype == "float32":
        activation = draw.cycle(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])
        x = g.input([batch, depth], dtype)
        feature = g.constant(draw.values([filters, depth], dtype))
        time = g.constant(draw.values([filters, memory], dtype))
        bias = g.constant(draw.values([units], dtype))
        state = g.tensor([batch, filters * memory], dtype, variable=True)
        y = g.output([batch, units], dtype)
    else:
        activation = draw.cycle(["NONE", "RELU"])
        state_type = "int16" if dtype == "int8" else "int8"
        top = 32767 if state_type == "int16" else 127
        # Both rescalings: to the state's range, and from the sum over time to the output's.
        f1 = min(draw.log_real(0.2, 3) * top / (depth * 255 * 64), 2.0**30 / (depth * 255 * 128))
        bound2 = rank * memory * top * (2**15 if state_type == "int16" else 128)
        f2 = min(draw.log_real(0.5, 30) * 128 / bound2, 2.0**29 / bound2)
        si, sf, st, ss = draw.scale(), draw.scale(), draw.scale(), None
        ss = float(np.float32(si * sf / f1))
        so = float(np.float32(ss * st / f2))
        zs = 0 if state_type == "int16" else draw.pick([0, draw.int(-20, 20)])
        x = g.input([batch, depth], "int8", Quant(si, draw.zero_point("int8")))
        feature = g.constant(draw.values([filters, depth], "int8", bound=127), Quant(sf))
        time = g.constant(draw.values([filters, memory], state_type, bound=top), Quant(st))
        limit = int(min(bound2 // 4, 2**28))
        bias = g.constant(draw.values([units], "int32", bound=limit), Quant(np.float32(ss) * np.float32(st)))
        state = g.tensor([batch, filters * memory], state_type, Quant(ss, zs), variable=True)
        y = g.output([batch, units], "int8", Quant(so, draw.zero_point("int8")))
    table = options("SVDF", rank=rank, fusedActivationFunction=ACTIVATIONS[activation])
    g.op("SVDF", [x, feature, time, bias, state], [y], table)
    values = sequences(draw, [batch, depth], "float32" if dtype == "float32" else "int8")
    parameters = {"input": [batch, depth], "units": units, "rank": rank, "memory": memory, "activation": activation}
    return Case(model, [values], parameters, stateful=True)


@operator("UNIDIRECTIONAL_SEQUENCE_LSTM", tflm="int8 int16 float32")
def lstm(draw, dtype):
    time_major = draw.cycle([False, True])
    batch, steps = draw.pick([1, 1, 2]), draw.size(1, 5, 3)
    depth, units = draw.size(1, 10, 4), draw.size(1, 8, 4)
    x_shape = [steps, batch, depth] if time_major else [batch, steps, depth]
    clip = float(np.float32(draw.cycle([0.0, 10.0, 0.0, draw.real(0.3, 3)])))
    model = Model()
    g = model.main
    if dtype == "float32":
        q_in = q_hidden = q_cell = None
        cell_type = "float32"
    else:
        q_in, q_hidden = lstm_quants(draw, dtype)
        q_cell, cell_type = Quant(2.0 ** -draw.int(9, 15)), "int16"
    x = g.input(x_shape, dtype, q_in)
    of_input = [gate_weights(draw, g, dtype, units, depth, q_in) for _ in range(4)]
    of_state = [gate_weights(draw, g, dtype, units, units, q_hidden) for _ in range(4)]
    biases = [gate_bias(draw, g, dtype, units, scale) for _, scale in of_input]
    weights = [index for index, _ in of_input + of_state]
    state = g.tensor([batch, units], dtype, q_hidden, variable=True)
    cell = g.tensor([batch, units], cell_type, q_cell, variable=True)
    y = g.output([*x_shape[:2], units], dtype, q_hidden)
    operands = [x, *weights, -1, -1, -1, *biases, -1, -1, state, cell, -1, -1, -1, -1]
    table = options(
        "UnidirectionalSequenceLSTM", fusedActivationFunction=TANH, cellClip=clip, timeMajor=time_major
    )
    g.op("UNIDIRECTIONAL_SEQUENCE_LSTM", operands, [y], table)
    parameters = {"input": x_shape, "units": units, "time_major": time_major, "cell_clip": clip}
    return Case(model, [sequences(draw, x_shape, dtype)], parameters, stateful=True)


def lstm_quants(draw, dtype):
    """Quantization of the input, and of output and hidden state, whose values lie between -1 and 1."""
    if dtype == "int16":
        hidden = 2.0**-15 if draw.chance(0.5) else draw.real(0.5, 1.2) * 2.0**-15
        return Quant(draw.scale(1e-5, 1e-3)), Quant(float(np.float32(hidden)))
    hidden = 2.0**-7 if draw.chance(0.5) else draw.real(0.5, 1.2) * 2.0**-7
    zero = draw.pick([0, draw.int(-20, 20)])
    return Quant(draw.scale(1e-3, 0.1), draw.zero_point(dtype)), Quant(float(np.float32(hidden)), zero)


def gate_weights(draw, graph, dtype, units, columns, q_source):
    """Weights of one gate (tensor index, scale of the products) whose sums are a few units in real terms."""
    if dtype == "float32":
        return graph.constant((draw.values([units, columns], dtype) * 0.5).astype(np.float32)), None
    top = 127 if dtype == "int8" else 32767
    scale = float(np.float32(draw.log_real(0.5, 6) / (columns * top * 60 * q_source.scale)))
    weights = graph.constant(draw.values([units, columns], "int8", bound=127), Quant(scale))
    return weights, scale * q_source.scale


def gate_bias(draw, graph, dtype, units, scale):
    if dtype == "float32":
        return graph.constant(draw.values([units], dtype))
    values = draw.values([units], "int32", bound=int(min(2 / scale, 2**29)))
    return graph.constant(values.astype(np.int64 if dtype == "int16" else np.int32), Quant(float(np.float32(scale))))


@operator("VARIABLE", tflm="int8 float32", tflm_extra="int16 int32")
def variable(draw, dtype):
    """VAR_HANDLE, READ_VARIABLE and ASSIGN_VARIABLE: a window that slides over the last inputs of a stream."""
    rows, new, depth = draw.int(1, 4), draw.int(1, 2), draw.size(1, 5, 3)
    quant = draw.quant(dtype)
    started = draw.cycle(["constant", "zero point", "constant"])
    if quant is not None and started == "constant":
        # The variable begins at the zero point of what is assigned first; a constant replaces it.
        quant.zero_point = draw.zero_point(dtype)
    model = Model()
    first = model.subgraph() if started == "constant" else None

    def handle(graph):
        index = graph.tensor([], "resource")
        table = options("VarHandle", container=b"", sharedName=b"window")
        graph.op("VAR_HANDLE", [], [index], table)
        return index

    g = model.main
    if first is not None:
        h = handle(first)
        start = first.constant(draw.values([1, rows, depth], dtype), quant)
        first.op("ASSIGN_VARIABLE", [h, start], [], options("AssignVariable"))
        g.op("CALL_ONCE", [], [], options("CallOnce", initSubgraphIndex=1))
    x = g.input([1, new, depth], dtype, quant)
    h = handle(g)
    old = g.tensor([1, rows, depth], dtype, quant)
    g.op("READ_VARIABLE", [h], [old], options("ReadVariable"))
    joined = g.output([1, rows + new, depth], dtype, quant)
    g.op("CONCATENATION", [old, x], [joined], options("Concatenation", axis=1))
    kept = g.tensor([1, rows, depth], dtype, quant)
    bounds = [g.constant(np.array(v, np.int32)) for v in ([0, new, 0], [1, rows + new, depth], [1, 1, 1])]
    g.op("STRIDED_SLICE", [joined, *bounds], [kept], options("StridedSlice", beginMask=5, endMask=7))
    g.op("ASSIGN_VARIABLE", [h, kept], [], options("AssignVariable"))
    parameters = {"rows": rows, "new": new, "depth": depth, "start": started}
    return Case(model, [sequences(draw, [1, new, depth], dtype)], parameters, stateful=True, tolerance=0.0)
