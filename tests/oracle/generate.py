#!/usr/bin/env python3
"""Generates single-operator models with reference outputs. See README.md beside this file."""

import argparse
import importlib.metadata
import io
import json
import multiprocessing
import os
import sys
import zipfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np  # noqa: E402

from oracle import ops_elementwise, ops_graph, ops_matrix, ops_movement, ops_reduce, ops_signal, ops_state  # noqa: E402, F401
from oracle.case import FLOAT_TOLERANCE, VARIANTS, Draw  # noqa: E402
from oracle.runner import Oracle, Refused, available  # noqa: E402

FORMAT = 1
ORACLES = {}  # one worker per oracle and process


def samples_of(case):
    """The input arrays as sequences of steps of lists of tensors; an ordinary sample is a sequence of one step."""
    count = len(case.inputs[0])
    if case.stateful:
        return [
            [[np.array(a[s, t], order="C") for a in case.inputs] for t in range(case.inputs[0].shape[1])]
            for s in range(count)
        ]
    return [[[np.array(a[s], order="C") for a in case.inputs]] for s in range(count)]


def stacked(results, stateful):
    """The outputs with the axes of the inputs in front: sample, or sequence and step."""
    outputs = []
    for i in range(len(results[0][0])):
        if stateful:
            outputs.append(np.stack([np.stack([step[i] for step in steps]) for steps in results]))
        else:
            outputs.append(np.stack([steps[0][i] for steps in results]))
    return outputs


def generate_variant(job):
    """All cases of one variant: (variant's number, records with model and arrays, reasons of refusals)."""
    number, seed, wanted, tiny = job
    variant = VARIANTS[number]
    oracle = ORACLES.setdefault(variant.oracle, Oracle(variant.oracle))
    found, refusals = [], Counter()
    for attempt in range(3 * wanted + 8):
        if len(found) == wanted:
            break
        draw = Draw(seed, variant.stem, attempt, tiny)
        case = variant.generate(draw, variant.dtype)
        model = case.model.pack()
        try:
            results = oracle.run(model, samples_of(case))
        except Refused as refusal:
            refusals[str(refusal)] += 1
            continue
        outputs = stacked(results, case.stateful)
        if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in outputs):
            refusals["output is not finite"] += 1
            continue
        tolerance = case.tolerance
        if tolerance is None:
            tolerance = FLOAT_TOLERANCE if any(a.dtype.kind == "f" for a in outputs) else 0.0
        record = {
            "name": f"{variant.stem}_{len(found)}",
            "operator": variant.operator,
            "dtype": variant.dtype,
            "oracle": variant.oracle,
            "required": variant.required,
            "stateful": case.stateful,
            "tolerance": tolerance,
            "steps": case.steps,
            "parameters": plain(case.parameters),
        }
        found.append((record, model, case.inputs, outputs))
    return number, found, refusals


def plain(value):
    """The value without NumPy types, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def zip_bytes(entries):
    """A deflated zip that depends on nothing but its content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def npy_bytes(array):
    stream = io.BytesIO()
    array = np.asarray(array, order="C")  # keeps a rank of zero
    np.save(stream, array.astype(array.dtype.newbyteorder("<")), allow_pickle=False)
    return stream.getvalue()


def named(inputs, outputs):
    return [(f"in_{i}", a) for i, a in enumerate(inputs)] + [(f"out_{i}", a) for i, a in enumerate(outputs)]


def write_folder(folder, cases, head):
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "index.json").exists():  # an older set
        for old in (*folder.glob("*.tflite"), *folder.glob("*.npz")):
            old.unlink()
    records = []
    for record, model, inputs, outputs in cases:
        record |= {"model": record["name"] + ".tflite", "data": record["name"] + ".npz"}
        (folder / record["model"]).write_bytes(model)
        arrays = [(name + ".npy", npy_bytes(a)) for name, a in named(inputs, outputs)]
        (folder / record["data"]).write_bytes(zip_bytes(arrays))
        records.append(record)
    lines = ",\n".join(json.dumps(r) for r in records)
    (folder / "index.json").write_text(json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n")


def packed(cases, head):
    """Everything in one .npz: `index` (JSON as UTF-8) and `blob`, the bytes that it points into."""
    blob, records = bytearray(), []

    def place(data):
        blob.extend(bytes(-len(blob) % 16))
        blob.extend(data)
        return [len(blob) - len(data), len(data)]

    for record, model, inputs, outputs in cases:
        record["model"] = place(model)
        record["arrays"] = {}
        for name, array in named(inputs, outputs):
            data = array.astype(array.dtype.newbyteorder("<")).tobytes()
            record["arrays"][name] = {
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "at": place(data),
            }
        records.append(record)
    index = json.dumps(head | {"cases": records}, separators=(",", ":")).encode()
    return {"index": np.frombuffer(index, np.uint8), "blob": np.frombuffer(bytes(blob), np.uint8)}


def write_packed(path, cases, head):
    entries = [(name + ".npy", npy_bytes(array)) for name, array in packed(cases, head).items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zip_bytes(entries))


def check_packed(path, cases, head):
    """Exit code 1 when generating again gives something else than the file holds."""
    new, problems = packed(cases, head), []
    with np.load(path) as old:
        for name, array in new.items():
            if not np.array_equal(old[name], array):
                problems.append(name)
    print(f"{path}: " + (f"differs in {', '.join(problems)}" if problems else "equals what the oracles say today"))
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for <case>.tflite, <case>.npz and index.json")
    parser.add_argument("--pack", type=Path, metavar="FILE", help="one .npz for all cases instead of a folder")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with a file that --pack wrote")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-op", type=int, default=20, metavar="N", help="cases per operator and element type")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only variants whose name has this")
    parser.add_argument("--tiny", action="store_true", help="small shapes, one sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--quiet", action="store_true", help="print only what is missing and the totals")
    args = parser.parse_args()
    if not args.out and not args.pack and not args.check:
        parser.error("say --out FOLDER, --pack FILE or --check FILE")
    if args.check:
        with np.load(args.check) as old:
            head = json.loads(old["index"].tobytes())
        args.seed, args.per_op, args.tiny, args.only = head["seed"], head["per_op"], head["tiny"], []

    missing = {name: why for name in ("tflm", "litert") if (why := available(name))}
    if "tflm" in missing:
        sys.exit(f"tflite-micro cannot be used: {missing['tflm']}. Run: pip install -r requirements.txt")
    chosen = [
        i for i, v in enumerate(VARIANTS) if not args.only or any(t.lower() in v.stem for t in args.only)
    ]
    jobs = [(i, args.seed, args.per_op, args.tiny) for i in chosen if VARIANTS[i].oracle not in missing]
    results = run_jobs(jobs, args.jobs)

    head = {"format": FORMAT, "seed": args.seed, "per_op": args.per_op, "tiny": args.tiny, "oracles": versions()}
    cases = [case for number in sorted(results) for case in results[number][0]]
    code = report(chosen, results, missing, args)
    if args.out:
        write_folder(args.out, cases, head)
    if args.pack:
        write_packed(args.pack, cases, head)
    if args.check:
        code = check_packed(args.check, cases, head) or code
    sys.exit(code)


def versions():
    """The installed oracles."""
    found = {}
    for name in ("tflite-micro", "ai-edge-litert"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def run_jobs(jobs, processes):
    """Worker processes of their own start the oracles, so that a dying oracle takes nobody along."""
    results = {}
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, initializer=undaemonize) as pool:
        for number, found, refusals in pool.imap_unordered(generate_variant, jobs, chunksize=1):
            results[number] = (found, refusals)
        # Let the workers end by themselves: a pool that is torn down would leave their oracles behind.
        pool.close()
        pool.join()
    return results


def undaemonize():
    # A pool's worker may not have children of its own unless it forgets that it is one.
    multiprocessing.current_process()._config["daemon"] = False


def report(chosen, results, missing, args):
    failed = []
    total = 0
    for number in chosen:
        variant = VARIANTS[number]
        found, refusals = results.get(number, ([], Counter()))
        total += len(found)
        status = f"{variant.stem:44} {variant.oracle:7} accepted {len(found):4}  refused {sum(refusals.values()):4}"
        if variant.oracle in missing:
            status = f"{variant.stem:44} {variant.oracle:7} not generated: the oracle is not installed"
        elif len(found) < args.per_op:
            status += f"  SHORT of {args.per_op}"
            failed.append(variant.stem)
        if refusals:
            status += ": " + "; ".join(f"{n} x {text}" for text, n in refusals.most_common(2))
        if not args.quiet or "SHORT" in status or variant.oracle in missing:
            print(status)
    print(f"{total} cases of {len(chosen)} variants, {len({VARIANTS[n].operator for n in chosen})} operators")
    if missing:
        print(f"without {', '.join(missing)}: pip install -r requirements-litert.txt adds uint8, hybrid and float16")
    if failed:
        print(f"FAILED: too few cases accepted for {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    main()
