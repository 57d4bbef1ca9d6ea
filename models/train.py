#!/usr/bin/env python3
"""Trains the repository's own models and writes them with inputs and reference outputs. See README.md."""

import hashlib
import io
import json
import os
import sys
import zipfile
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""}
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import convert  # noqa: E402
import data  # noqa: E402
import networks  # noqa: E402
from oracle.runner import Oracle  # noqa: E402 (convert.py makes tests/oracle importable)

HERE = Path(__file__).resolve().parent
SEED = 20261122
SAMPLES = 6  # reference samples per model
SEQUENCES = 2  # reference sequences per streaming model


class Set:
    """Collects the models, runs the oracles, writes the files."""

    def __init__(self):
        self.records, self.oracles = [], {}

    def run(self, oracle, file, arrays):
        """Outputs for `arrays`: samples, or sequences of steps."""
        worker = self.oracles.setdefault(oracle, Oracle(oracle))
        return worker.run(file, arrays)

    def add(self, name, task, file, inputs, stateful=False, oracle="tflm", **more):
        """`inputs`: raw values; axes sample and shape, or sequence, step and shape."""
        (HERE / f"{name}.tflite").write_bytes(file)
        if stateful:
            results = self.run(oracle, file, [[[step] for step in sequence] for sequence in inputs])
            outputs = np.stack([np.stack([step[0] for step in sequence]) for sequence in results])
        else:
            results = self.run(oracle, file, [[[sample]] for sample in inputs])
            outputs = np.stack([sequence[0][0] for sequence in results])
        write_npz(HERE / f"{name}.npz", {"in_0": inputs, "out_0": outputs})
        kernels = {"tflm": "TensorFlow Lite Micro", "litert": "LiteRT BUILTIN_REF"}[oracle]
        self.records.append(
            {
                "name": name,
                "task": task,
                "file": f"{name}.tflite",
                "data": f"{name}.npz",
                "bytes": len(file),
                "sha256": hashlib.sha256(file).hexdigest(),
                "stateful": stateful,
                "reference": kernels,
                "tolerance": 1e-5 if outputs.dtype == np.float32 else 0.0,
            }
            | more
        )
        print(f"{name:26} {len(file):6} bytes  {more.get('accuracy', '')}", flush=True)

    def accuracy(self, oracle, file, x, y):
        """Share of samples whose largest output is the label's."""
        results = self.run(oracle, file, [[[sample]] for sample in x])
        predicted = [int(np.argmax(sequence[0][0])) for sequence in results]
        return round(float(np.mean(np.array(predicted) == y)), 4)

    def accuracy_over_time(self, oracle, file, x, y):
        results = self.run(oracle, file, [[[step] for step in sequence] for sequence in x])
        scores = [np.mean([step[0][0].astype(np.float64) for step in s], 0) for s in results]
        return round(float(np.mean(np.argmax(scores, 1) == y)), 4)


def quantized(file, x):
    """Real inputs as the raw values of an integer model's input."""
    tensor = convert.schema.ModelT.InitFromPackedBuf(file, 0).subgraphs[0]
    tensor = tensor.tensors[tensor.inputs[0]]
    kinds = {3: np.uint8, 7: np.int16, 9: np.int8}
    kind = np.iinfo(kinds[tensor.type])
    scale, zero = np.float32(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    return np.clip(np.round(x / scale) + zero, kind.min, kind.max).astype(kind.dtype)


def write_npz(path, arrays):
    """Deflated, without dates, so that equal arrays give an equal file."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, np.ascontiguousarray(array, array.dtype.newbyteorder("<")), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(name + ".npy"), stream.getvalue(), zipfile.ZIP_DEFLATED, 9)


def save(name, array):
    np.save(HERE / f"{name}.npy", np.ascontiguousarray(array, array.dtype.newbyteorder("<")), allow_pickle=False)


def batched(x):
    return x[:, None]  # the batch axis of 1 that the models' inputs have


def digit_models(out):
    (x, y), (tx, ty) = data.digits(SEED)
    labelled = {"inputs": "digits_x_int8.npy", "labels": "digits_y.npy", "metric": "accuracy"}
    task = "handwritten digits, 8x8"

    resnet = networks.fit(networks.digits_resnet, x, y, 40, SEED)
    file = convert.int8(resnet, x[:300])
    q = quantized(file, tx)
    save("digits_x_int8", q[:150])
    save("digits_y", ty[:150].astype(np.int32))
    accuracy = out.accuracy("tflm", file, batched(q), ty)
    out.add("digits_resnet_int8", task, file, batched(q[:SAMPLES]), labelled=labelled, accuracy=accuracy)

    lstm = networks.fit(networks.digits_lstm, x, y, 40, SEED)
    file = convert.int8(lstm, x[:300])
    q = quantized(file, tx)
    accuracy = out.accuracy("tflm", file, batched(q), ty)
    # One image is one whole sequence: each sample starts from a zero state.
    task_rows = task + ", row by row"
    out.add("digits_lstm_int8", task_rows, file, batched(q[:SAMPLES]), labelled=labelled, accuracy=accuracy)

    cnn = networks.fit(networks.digits_cnn, x, y, 40, SEED)
    shape = x.shape[1:]
    save("digits_x_float32", tx[:60])
    save("digits_y_float32", ty[:60].astype(np.int32))
    in_float = labelled | {"inputs": "digits_x_float32.npy", "labels": "digits_y_float32.npy"}
    for name, oracle, file in (
        ("digits_cnn_float32", "tflm", convert.float32(cnn, shape)),
        ("digits_cnn_float16", "litert", convert.float16(cnn, shape)),
        ("digits_cnn_hybrid", "litert", convert.hybrid(cnn, shape)),
    ):
        accuracy = out.accuracy(oracle, file, batched(tx), ty)
        out.add(name, task, file, batched(tx[:SAMPLES]), oracle=oracle, labelled=in_float, accuracy=accuracy)
    file = convert.int16(cnn, x[:300])
    q = quantized(file, tx)
    accuracy = out.accuracy("tflm", file, batched(q), ty)
    out.add("digits_cnn_int16", task, file, batched(q[:SAMPLES]), accuracy=accuracy)
    file = convert.uint8_from_int8(convert.int8(cnn, x[:300], per_channel=False))
    q = quantized(file, tx)
    accuracy = out.accuracy("litert", file, batched(q), ty)
    out.add("digits_cnn_uint8", task, file, batched(q[:SAMPLES]), oracle="litert", accuracy=accuracy)


def keyword_models(out):
    rng = np.random.default_rng(SEED)
    (x, y), (tx, ty) = data.keywords(rng, 4000), data.keywords(rng, 400)
    task = "synthetic keyword spotting, 49 frames of 10 bands, 8 classes"

    dscnn = networks.fit(networks.keyword_dscnn, x, y, 12, SEED)
    file = convert.int8(dscnn, x[:300])
    q = quantized(file, tx)
    save("keyword_x_int8", q[:40])
    save("keyword_y", ty[:40].astype(np.int32))
    labelled = {"inputs": "keyword_x_int8.npy", "labels": "keyword_y.npy", "metric": "accuracy"}
    accuracy = out.accuracy("tflm", file, batched(q), ty)
    out.add("keyword_dscnn_int8", task, file, batched(q[:SAMPLES]), labelled=labelled, accuracy=accuracy)

    frames, tframes = x[:, :, None, :, 0], tx[:, :, None, :, 0]  # sequence, frame, 1, band
    cnn = networks.fit(networks.streaming_cnn, frames, y, 12, SEED, networks.mean_over_time)
    file = convert.int8_streaming(networks.StreamingModule(cnn), frames[:20].reshape(-1, 1, 10))
    q = quantized(file, tframes)[:, :, None]
    out.add(
        "keyword_streaming_int8",
        task + ", frame by frame, state in variables",
        file,
        q[:SEQUENCES],
        stateful=True,
        accuracy=out.accuracy_over_time("tflm", file, q[:200], ty[:200]),
    )

    svdf = networks.fit(networks.keyword_svdf, x[..., 0], y, 30, SEED, networks.mean_over_time, rate=1e-2)
    file = convert.int8_svdf(svdf, x[:300, :, :, 0])
    q = quantized(file, tframes)
    out.add(
        "keyword_svdf_int8",
        task + ", frame by frame, SVDF",
        file,
        q[:SEQUENCES],
        stateful=True,
        accuracy=out.accuracy_over_time("tflm", file, q[:200], ty[:200]),
    )


def shape_model(out):
    rng = np.random.default_rng(SEED + 1)
    (x, y), (tx, ty) = data.shapes(rng, 6000), data.shapes(rng, 400)
    network = networks.fit(networks.shapes_mobilenet, x, y, 12, SEED)
    file = convert.int8(network, x[:200])
    q = quantized(file, tx)
    accuracy = out.accuracy("tflm", file, batched(q), ty)
    out.add("shapes_mobilenet_int8", "is there a shape? 48x48 gray", file, batched(q[:4]), accuracy=accuracy)


def vibration_model(out):
    rng = np.random.default_rng(SEED + 2)
    x, good, bad = data.vibration(rng, 3000), data.vibration(rng, 60), data.vibration(rng, 60, faulty=True)
    network = networks.fit(networks.vibration_autoencoder, x, x, 60, SEED, networks.losses.MeanSquaredError())
    file = convert.int8(network, x[:300])
    tx, ty = np.concatenate([good, bad]), np.repeat([0, 1], 60)
    order = rng.permutation(len(tx))
    q, ty = quantized(file, tx[order]), ty[order]
    save("vibration_x_int8", q)
    save("vibration_y", ty.astype(np.int32))
    results = out.run("tflm", file, [[[sample]] for sample in batched(q)])
    error = np.mean((real(file, np.stack([r[0][0][0] for r in results]), False) - real(file, q, True)) ** 2, 1)
    above = error[ty == 1][:, None] > error[ty == 0]
    out.add(
        "vibration_autoencoder_int8",
        "machine vibration, reconstruction of a spectrum of 64 bins",
        file,
        batched(q[:SAMPLES]),
        labelled={"inputs": "vibration_x_int8.npy", "labels": "vibration_y.npy", "metric": "auc"},
        auc_of_mean_squared_error=round(float(np.mean(above)), 4),
    )


def real(file, values, of_input):
    """Raw values of the model's input or output as real numbers."""
    graph = convert.schema.ModelT.InitFromPackedBuf(file, 0).subgraphs[0]
    tensor = graph.tensors[(graph.inputs if of_input else graph.outputs)[0]]
    return (values.astype(np.float64) - int(tensor.quantization.zeroPoint[0])) * float(tensor.quantization.scale[0])


def main():
    tf.config.experimental.enable_op_determinism()
    out = Set()
    for make in (keyword_models, digit_models, shape_model, vibration_model):
        make(out)
    lines = ",\n".join(json.dumps(record) for record in out.records)
    (HERE / "index.json").write_text('{"format": 1, "models": [\n' + lines + "\n]}\n")
    total = sum(p.stat().st_size for p in HERE.iterdir() if p.is_file())
    print(f"{len(out.records)} models, {total} bytes in all")


if __name__ == "__main__":
    sys.exit(main())
