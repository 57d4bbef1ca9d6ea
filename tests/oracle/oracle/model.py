"""Builds small .tflite models in memory with the flatbuffer object API."""

from dataclasses import dataclass

import flatbuffers
import numpy as np
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

# Element type name -> (flatbuffer code, NumPy type).
TYPES = {
    "float32": (schema.TensorType.FLOAT32, np.float32),
    "float16": (schema.TensorType.FLOAT16, np.float16),
    "int8": (schema.TensorType.INT8, np.int8),
    "int16": (schema.TensorType.INT16, np.int16),
    "int32": (schema.TensorType.INT32, np.int32),
    "int64": (schema.TensorType.INT64, np.int64),
    "uint8": (schema.TensorType.UINT8, np.uint8),
    "uint32": (schema.TensorType.UINT32, np.uint32),
    "uint64": (schema.TensorType.UINT64, np.uint64),
    "bool": (schema.TensorType.BOOL, np.bool_),
}
RESOURCE = schema.TensorType.RESOURCE

ACTIVATIONS = {
    "NONE": schema.ActivationFunctionType.NONE,
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU6": schema.ActivationFunctionType.RELU6,
    "RELU_N1_TO_1": schema.ActivationFunctionType.RELU_N1_TO_1,
}
PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}


@dataclass
class Quant:
    """Affine quantization: real = (stored - zero_point) * scale; one scale, or one per index of `axis`."""

    scale: object
    zero_point: object = 0
    axis: int = 0

    def scales(self):
        return np.atleast_1d(np.asarray(self.scale, np.float32))

    def zero_points(self):
        points = np.atleast_1d(np.asarray(self.zero_point, np.int64))
        return np.broadcast_to(points, self.scales().shape)


class Graph:
    """One subgraph under construction. Tensors are referred to by their index."""

    def __init__(self, model):
        self.model = model
        self.sub = schema.SubGraphT()
        self.sub.name = b"main"
        self.sub.tensors, self.sub.inputs, self.sub.outputs, self.sub.operators = [], [], [], []

    def tensor(self, shape, dtype, quant=None, data=None, variable=False):
        t = schema.TensorT()
        t.shape = [int(d) for d in shape]
        t.type = RESOURCE if dtype == "resource" else TYPES[dtype][0]
        t.name = b"t%d" % len(self.sub.tensors)
        t.isVariable = variable
        if data is not None:
            t.buffer = self.model.buffer(data)
        if quant is not None:
            q = schema.QuantizationParametersT()
            q.scale = quant.scales().tolist()
            q.zeroPoint = quant.zero_points().tolist()
            q.quantizedDimension = quant.axis
            t.quantization = q
        self.sub.tensors.append(t)
        return len(self.sub.tensors) - 1

    def input(self, shape, dtype, quant=None):
        index = self.tensor(shape, dtype, quant)
        self.sub.inputs.append(index)
        return index

    def constant(self, array, quant=None, dtype=None):
        array = np.ascontiguousarray(array)
        return self.tensor(array.shape, dtype or array.dtype.name, quant, array)

    def output(self, shape, dtype, quant=None):
        index = self.tensor(shape, dtype, quant)
        self.sub.outputs.append(index)
        return index

    def op(self, code, inputs, outputs, options=None, custom=None):
        """Appends an operator. `code` is a builtin's name, or the name of a custom operator with `custom` bytes."""
        o = schema.OperatorT()
        o.inputs, o.outputs = list(inputs), list(outputs)
        o.opcodeIndex = self.model.opcode(code, custom is not None)
        if options is not None:
            o.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            o.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        if custom is not None:
            o.customOptions = list(custom)
        self.sub.operators.append(o)


class Model:
    """A model with one subgraph (`main`) or more."""

    def __init__(self):
        self.m = schema.ModelT()
        self.m.version = 3
        self.m.buffers = [schema.BufferT()]
        self.m.operatorCodes, self.m.subgraphs = [], []
        self.main = self.subgraph()

    def subgraph(self):
        graph = Graph(self)
        self.m.subgraphs.append(graph.sub)
        return graph

    def buffer(self, array):
        b = schema.BufferT()
        b.data = np.frombuffer(array.tobytes(), np.uint8)
        self.m.buffers.append(b)
        return len(self.m.buffers) - 1

    def opcode(self, name, custom):
        c = schema.OperatorCodeT()
        c.version = 1
        if custom:
            c.builtinCode = schema.BuiltinOperator.CUSTOM
            c.customCode = name.encode()
        else:
            c.builtinCode = getattr(schema.BuiltinOperator, name)
        c.deprecatedBuiltinCode = min(c.builtinCode, 127)
        self.m.operatorCodes.append(c)
        return len(self.m.operatorCodes) - 1

    def versions(self, version):
        """Sets the version of every operator; LiteRT looks at it, TFLM does not."""
        for c in self.m.operatorCodes:
            c.version = version
        return self

    def pack(self):
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.m.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def options(kind, **fields):
    """An options table, for example options("Conv2D", strideW=1)."""
    table = getattr(schema, kind + "OptionsT")()
    for name, value in fields.items():
        if not hasattr(table, name):
            raise AttributeError(f"{kind}Options has no field {name}")
        setattr(table, name, value)
    return table
