"""From a trained network to .tflite: TensorFlow's converter, and two kinds of file that it no longer writes."""

import sys
import tempfile
from pathlib import Path

import flatbuffers
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "oracle"))
from oracle.model import Model, Quant, options, schema  # noqa: E402


def converter_of(network, shape):
    call = tf.function(lambda x: network(x), input_signature=[tf.TensorSpec([1, *shape], tf.float32)])
    return tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()], network)


def float32(network, shape):
    return converter_of(network, shape).convert()


def float16(network, shape):
    """float16 weights, widened by DEQUANTIZE operators; float32 arithmetic."""
    converter = converter_of(network, shape)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def hybrid(network, shape):
    """int8 weights, float32 activations ("dynamic range")."""
    converter = converter_of(network, shape)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def calibrated(converter, samples, io_type, ops):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([s[None].astype(np.float32)] for s in samples)
    converter.target_spec.supported_ops = [ops]
    converter.inference_input_type = converter.inference_output_type = io_type
    return converter


def int8(network, samples, per_channel=True):
    converter = calibrated(
        converter_of(network, samples.shape[1:]), samples, tf.int8, tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    )
    converter._experimental_disable_per_channel = not per_channel
    return converter.convert()


def int16(network, samples):
    """int16 activations, int8 weights."""
    ops = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    return calibrated(converter_of(network, samples.shape[1:]), samples, tf.int16, ops).convert()


def int8_streaming(module, frames):
    """A tf.Module whose `step` keeps its state in variables, which become int8 as well."""
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=module.step)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter = calibrated(converter, frames, tf.int8, tf.lite.OpsSet.TFLITE_BUILTINS_INT8)
        converter.experimental_enable_resource_variables = True
        converter._experimental_variable_quantization = True
        return converter.convert()


def uint8_from_int8(file):
    """The older uint8 form of a per-tensor int8 model: every int8 value and zero point moves up by 128.

    TensorFlow 1 wrote such files after quantization-aware training; no converter does so any more. The real numbers
    that the values stand for, and so what the model computes up to rounding, stay the same.
    """
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    done = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.type != schema.TensorType.INT8:
                continue
            tensor.type = schema.TensorType.UINT8
            assert len(tensor.quantization.scale) == 1, "the int8 model is quantized per channel"
            tensor.quantization.zeroPoint = [int(z) + 128 for z in tensor.quantization.zeroPoint]
            data = model.buffers[tensor.buffer].data
            if data is not None and tensor.buffer not in done:
                done.add(tensor.buffer)
                values = np.asarray(data, np.uint8).view(np.int8).astype(np.int16) + 128
                model.buffers[tensor.buffer].data = values.astype(np.uint8)
    for code in model.operatorCodes:
        code.version = 1
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def symmetric(values, limit):
    """Weights as integers up to `limit` with zero point 0, and their scale."""
    scale = float(np.float32(np.abs(values).max() / limit))
    return np.round(values / scale).astype(np.int8 if limit == 127 else np.int16), scale


def affine(low, high):
    """int8 quantization of a range that includes zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255))
    return Quant(scale, int(round(-128 - low / scale)))


def int8_svdf(network, frames):
    """SVDF with int16 state, then a fully connected layer, written tensor by tensor.

    TensorFlow's converter has no way to SVDF since TensorFlow 1; the operator lives on in small keyword spotters.
    `frames`: sequences of frames that set the ranges.
    """
    svdf, dense = network.layers
    feature, time, bias = (np.asarray(w) for w in svdf.get_weights())
    kernel, dense_bias = (np.asarray(w) for w in dense.get_weights())
    batch = frames.astype(np.float32)
    hidden = np.asarray(svdf(batch))
    scores = np.asarray(dense(hidden))
    states = batch @ feature

    q_in = affine(float(batch.min()), float(batch.max()))
    q_hidden = affine(0.0, float(hidden.max()))
    q_scores = affine(float(scores.min()), float(scores.max()))
    q_state = Quant(float(np.float32(np.abs(states).max() / 32767)))
    w_feature, s_feature = symmetric(feature.T, 127)
    w_time, s_time = symmetric(time[:, 0, :, 0].T, 32767)
    w_dense, s_dense = symmetric(kernel.T, 127)

    def int32_bias(values, scale):
        return np.round(values / scale).astype(np.int32), Quant(float(np.float32(scale)))

    model = Model()
    g = model.main
    depth, filters, memory = feature.shape[0], feature.shape[1], svdf.memory
    x = g.input([1, depth], "int8", q_in)
    state = g.tensor([1, filters * memory], "int16", q_state, variable=True)
    hidden_tensor = g.tensor([1, svdf.units], "int8", q_hidden)
    y = g.output([1, 8], "int8", q_scores)
    relu = schema.ActivationFunctionType.RELU
    operands = [
        x,
        g.constant(w_feature, Quant(s_feature)),
        g.constant(w_time, Quant(s_time)),
        g.constant(*int32_bias(bias, q_state.scale * s_time)),
        state,
    ]
    g.op("SVDF", operands, [hidden_tensor], options("SVDF", rank=svdf.rank, fusedActivationFunction=relu))
    operands = [hidden_tensor, g.constant(w_dense, Quant(s_dense))]
    operands.append(g.constant(*int32_bias(dense_bias, q_hidden.scale * s_dense)))
    g.op("FULLY_CONNECTED", operands, [y], options("FullyConnected"))
    return model.pack()
