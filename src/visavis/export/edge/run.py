"""Raw tensors -> raw features: reads tensors/*.bin, writes features/*.bin (float32) and the time it took.

A model with a classifier inside also gives its logits: logits/*.bin in the same folder.

    python run.py TENSORS OUT [--batch 32] [--threads N]

Needs numpy and onnxruntime, nothing else.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, on import: nothing is reported to the runtime's maker

import onnxruntime

HERE = Path(__file__).resolve().parent


def open_session(threads=None):
    """The model beside this file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(HERE / "model.onnx"), options, providers=["CPUExecutionProvider"])


def features(session, batch, model):
    """Raw features (N, D) of tensors (N, ...) in the graph's layout, the mirrored view joined as the card says."""
    feature = run(session, batch)
    flip = model["preprocess"]["flip"]
    if model["input"] != "normalized" or flip == "none":
        return feature  # graphs that take pixels join it themselves
    mirrored = run(session, np.ascontiguousarray(batch[..., ::-1]))
    return feature + mirrored if flip == "sum" else np.concatenate([feature, mirrored], 1)


def run(session, batch):
    """The features the graph gives for tensors (N, ...)."""
    names = [o.name for o in session.get_outputs()]
    return output(session, batch, "embedding" if "embedding" in names else names[0])


def output(session, batch, name):
    """One output of the graph for tensors (N, ...); one of fixed batch is fed that many."""
    given = session.get_inputs()[0]
    fixed = given.shape[0] if isinstance(given.shape[0], int) else None
    count = len(batch)
    if fixed and count < fixed:
        batch = np.concatenate([batch, np.zeros((fixed - count, *batch.shape[1:]), batch.dtype)])
    return session.run([name], {given.name: batch})[0][:count]


def main():
    """Run every tensor of a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tensors", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    model = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
    session = open_session(args.threads)
    first = session.get_inputs()[0]
    size = args.batch if not isinstance(first.shape[0], int) else first.shape[0]
    kind = np.uint8 if first.type == "tensor(uint8)" else np.float32
    height, width = model["preprocess"]["size"]
    shape = (height, width, 3) if kind == np.uint8 else (3, height, width)
    files = [line.split("\t")[0] for line in (args.tensors / "list.txt").read_text(encoding="utf-8").splitlines()]
    classifies = "logits" in [o.name for o in session.get_outputs()]
    (args.out / "logits" if classifies else args.out).mkdir(parents=True, exist_ok=True)
    times = []
    for start in range(0, len(files), size):
        part = files[start : start + size]
        batch = np.stack([np.fromfile(args.tensors / name, kind).reshape(shape) for name in part])
        began = time.perf_counter()
        made = features(session, batch, model)
        times.append((time.perf_counter() - began) * 1e3 / len(part))
        for name, row in zip(part, made, strict=True):
            np.ascontiguousarray(row, np.float32).tofile(args.out / name)
        if classifies:
            for name, row in zip(part, output(session, batch, "logits"), strict=True):
                np.ascontiguousarray(row, np.float32).tofile(args.out / "logits" / name)
    found = {"pictures": len(files), "batch": size, "mean_ms": float(np.mean(times)), "p50_ms": float(np.median(times))}
    (args.out / "time.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(files)} features in {args.out}, {found['p50_ms']:.2f} ms per picture\n")


if __name__ == "__main__":
    main()
