"""Runs a model through an oracle in a process of its own, because a check that fails inside aborts the process."""

import ctypes
import multiprocessing
import os
import tempfile

ARENA_BYTES = 300_000
TIMEOUT_S = 60


class Refused(Exception):
    """The oracle does not take this model; the text is the oracle's own last message."""


def run_tflm(model, samples):
    """`samples`: one list of input arrays per step, grouped by sequence. Gives the outputs in the same grouping."""
    from tflite_micro.python.tflite_micro import runtime

    def sequence(steps):
        interpreter = runtime.Interpreter.from_bytes(model, arena_size=ARENA_BYTES)
        results = []
        for inputs in steps:
            for i, array in enumerate(inputs):
                interpreter.set_input(array, i)
            interpreter.invoke()
            results.append([interpreter.get_output(i).copy() for i in range(count)])
        return results

    count = output_count(model)
    return [sequence(steps) for steps in samples]


def run_litert(model, samples):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    results = []
    for steps in samples:
        interpreter = Interpreter(
            model_content=model,
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        )
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        sequence = []
        for arrays in steps:
            for detail, array in zip(inputs, arrays):
                interpreter.set_tensor(detail["index"], array)
            interpreter.invoke()
            sequence.append([interpreter.get_tensor(detail["index"]) for detail in outputs])
        results.append(sequence)
    return results


def run_twice(run, model, samples):
    """Two runs, with fresh memory filled in two ways, show results that depend on memory that nobody wrote."""
    first, second = [], []
    for results, pattern in ((first, 0x5A), (second, 0xC3)):
        fill_fresh_memory(pattern)
        results.extend(run(model, samples))
    for a, b in zip(first, second):
        for x, y in zip(a, b):
            if any(p.tobytes() != q.tobytes() for p, q in zip(x, y)):
                raise RuntimeError("result depends on uninitialized memory")
    return first


def fill_fresh_memory(pattern):
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # GNU libc; elsewhere the check is weaker
        libc.mallopt(-6, pattern)  # M_PERTURB


def output_count(model):
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    return schema.Model.GetRootAsModel(model, 0).Subgraphs(0).OutputsLength()


ORACLES = {"tflm": run_tflm, "litert": run_litert}


def _serve(connection, oracle, log):
    # The oracles print to both streams; errors are wanted, the rest is noise.
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    while True:
        model, samples = connection.recv()
        try:
            connection.send(("ok", run_twice(ORACLES[oracle], model, samples)))
        except Exception as error:  # every failure of the oracle is an answer
            connection.send(("refused", str(error)))


class Oracle:
    """A worker process for one oracle, started again when it dies."""

    def __init__(self, name):
        self.name = name
        self.process = None
        self.log = tempfile.TemporaryFile()
        self.context = multiprocessing.get_context("fork")

    def run(self, model, samples):
        """Raises Refused when the oracle gives an error, dies or hangs."""
        if self.process is None:
            self.connection, child = self.context.Pipe()
            self.process = self.context.Process(
                target=_serve, args=(child, self.name, self.log.fileno()), daemon=True
            )
            self.process.start()
            child.close()
        self.log.seek(0)
        self.log.truncate()
        self.connection.send((model, samples))
        if not self.connection.poll(TIMEOUT_S):
            self.process.kill()
            self._forget()
            raise Refused("no answer")
        try:
            status, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._forget()
            raise Refused(self._message("crashed")) from None
        if status == "refused":
            raise Refused(self._message(value))
        return value

    def close(self):
        if self.process is not None:
            self.process.kill()
            self._forget()

    def _forget(self):
        self.process.join()
        self.connection.close()
        self.process = None

    def _message(self, fallback):
        self.log.seek(0)
        lines = [line for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        lines = [line.strip() for line in lines if "failed to" not in line and not line.startswith("INFO")]
        # Paths and line numbers of the oracle's source would make every message different.
        text = lines[0].split(".cc:")[-1] if lines else fallback
        return f"{fallback}: {text}" if fallback == "crashed" and lines else text


def available(name):
    """None when the oracle can be used, else why not."""
    try:
        if name == "tflm":
            from tflite_micro.python.tflite_micro import runtime  # noqa: F401
        else:
            import ai_edge_litert.interpreter  # noqa: F401
    except ImportError as error:
        return str(error)
    return None
