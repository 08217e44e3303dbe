"""Every cell of runtime x precision x batch: latency, throughput, size and accuracy of an exported model.

    python benchmarks/export.py MODEL [--json FILE] [--rounds 7] [--seconds 4]       a model folder with its exports
    python benchmarks/export.py --networks deepid,iresnet50                           fresh networks, fp32 only

All ways are timed in one process, in turn, `--rounds` times over, on one thread. Ratios are of processor time against
eager PyTorch: on a machine that does other work too, wall time says more about that work than about the model.
`peak_share` is what a cell does of the network's multiplications per second, as a share of the best float32 product of
2048 x 2048 matrices, by torch.mm or NumPy's BLAS, timed before, between and after in the same process.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import harness
import torch
from torch.utils.flop_counter import FlopCounterMode

from visavis.backbones import build_backbone
from visavis.export.bench import candidates_of, machine, measure, sized
from visavis.export.gates.parity import crops_of
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.card import ModelCard, read_card
from visavis.models.torch import load_model, save_model
from visavis.vision.preprocessing import PreprocessSpec

SIZES = {"deepid": ((55, 47), 160), "small": ((56, 56), 128), "sphere20": ((112, 96), 512)}


def gemm_gflops(times=8, n=2048):
    """The best of a float32 product in PyTorch's BLAS and NumPy's, GFLOP per second of processor time."""
    a, b = torch.randn(n, n), torch.randn(n, n)
    ways = {"torch": lambda: torch.mm(a, b), "numpy": lambda: a.numpy() @ b.numpy()}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(times):
        for name, product in ways.items():
            start = time.process_time()
            product()
            best[name] = min(best[name], time.process_time() - start)
    return {name: 2 * n**3 / seconds / 1e9 for name, seconds in best.items()}


def gflop_of(folder):
    """GFLOP of one picture (a multiplication and an addition are two), without the mirrored view."""
    network, card = load_model(folder)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, *card.preprocess.size))
    return counter.get_total_flops() / 1e9


def cells_of(folder, *, batches, rounds, seconds):
    """Timings of a model folder's files with their accuracy and the ratio to eager PyTorch."""
    card = read_card(folder)
    candidates, _ = candidates_of(folder, card, [1])
    crops = crops_of(None, card.preprocess, count=32)
    timings, failed, peaks, gflop = [], [], [gemm_gflops()], gflop_of(folder)
    for batch in batches:
        found = measure(candidates, crops.images, batches=[batch], rounds=rounds, seconds=seconds)
        timings, failed = timings + found[0], failed + found[1]
        peaks.append(gemm_gflops())
    eager = {t.batch: t for t in timings if t.runtime == "torch"}
    cells = []
    for t in sized(timings, folder):
        record = card.exports.get(t.file, {}) if t.precision != "bf16" else {}
        judged = record.get("accuracy", {})
        parity = record.get("parity", {})
        cells.append(
            {
                **t.to_dict(),
                "cpu_ratio_to_eager": eager[t.batch].cpu_ms / t.cpu_ms,
                "wall_ratio_to_eager": eager[t.batch].p50_ms / t.p50_ms,
                "peak_share": gflop * t.batch / (t.cpu_ms / 1e3) / max(max(p.values()) for p in peaks),
                "accuracy": judged.get("accuracy"),
                "points_lost": judged.get("points_lost"),
                "pairs": judged.get("pairs"),
                "in_float": record.get("in_float"),
                "max_1_minus_cos": parity.get("max_1_minus_cos"),
            }
        )
    return {
        "model": card.name,
        "backbone": card.backbone,
        "size": card.preprocess.size,
        "template": card.preprocess.template,
        "flip": card.preprocess.flip,
        "gflop": gflop,
        "gemm_gflops": peaks,
        "cells": cells,
        "failed": failed,
    }


def fresh(name, home):
    """A model folder of an untrained network with its fp32 exports."""
    size, dim = SIZES.get(name, ((112, 112), 512))
    torch.manual_seed(0)
    network = build_backbone(name, size=size, dim=dim).eval()
    for module in network.modules():  # deep untrained networks overflow without this
        if isinstance(module, torch.nn.Conv2d) and name.startswith("iresnet"):
            torch.nn.init.kaiming_normal_(module.weight)
    save_model(home, network, ModelCard(name, name, dim, PreprocessSpec(size)))
    model = open_model(home)
    crops = crops_of(None, model.card.preprocess, count=4)
    for kind in ("onnx", "openvino"):
        export_model(model, kind, crops)
    return home


def main():
    """Measure and store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--networks", default="")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", default="benchmarks/results/export.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    how = {"batches": [int(b) for b in args.batches.split(",")], "rounds": args.rounds, "seconds": args.seconds}
    found = []
    if args.model:
        found.append(cells_of(Path(args.model), **how))
    for name in filter(None, args.networks.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found.append(cells_of(fresh(name, Path(folder) / name), **how))
    out = Path(args.json)
    stored = json.loads(out.read_text()) if out.is_file() else {"models": []}
    measured = {model["model"] for model in found}
    stored = {
        **harness.about(threads=1, packages=["onnx"]),
        "machine": machine(),
        "models": [m for m in stored["models"] if m["model"] not in measured] + found,
    }
    harness.write(stored, out, show=False)
    for model in found:
        for c in model["cells"]:
            accuracy = "" if c["accuracy"] is None else f"{100 * c['accuracy']:.2f} %"
            print(
                f"{model['model']:16} {c['runtime']:12} {c['precision']:5} b{c['batch']:<3} p50 {c['p50_ms']:8.2f} ms  "
                f"CPU {c['cpu_ms']:8.2f} ms  x{c['cpu_ratio_to_eager']:.2f}  {c['images_per_second']:7.1f}/s  "
                f"{100 * c['peak_share']:4.0f} % of GEMM  "
                f"{c['bytes'] / 1e6:6.2f} MB  {accuracy}"
            )


if __name__ == "__main__":
    main()
