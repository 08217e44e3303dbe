"""Partial FC on one machine: a training step of the head at 10 k, 100 k and 1 M classes, all classes or 1 % of them.

    python benchmarks/partial_fc.py [--runs 5] [--json FILE]

A step is forward, backward and the optimizer (momentum SGD: torch's for rate 1.0, `SparseSGD` with sparse gradients
for 0.01) of CosFace at batch 64, 128-d, on one thread. Each case has a process of its own. Times are given twice, CPU
time (does not depend on what else runs) and wall time. Memory: the centers and their momentum, the resident size before
and after the first steps, and the growth of its peak over the measured steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
import torch

from visavis.losses.heads.cosface import CosFaceHead
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sparse_sgd import SparseSGD

BATCH, DIM = 64, 128
CLASSES = (10_000, 100_000, 1_000_000)
RATES = (1.0, 0.01)


def measure(classes: int, rate: float, runs: int) -> dict[str, Any]:
    """Warm up, then take `runs` steps."""
    torch.manual_seed(0)
    head = MarginSoftmax(CosFaceHead(), num_classes=classes, dim=DIM, sample_rate=rate, sparse=rate < 1, seed=0)
    kind = SparseSGD if rate < 1 else torch.optim.SGD
    optimizer = kind(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    loaded = _status("VmRSS")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        x = torch.randn(BATCH, DIM, requires_grad=True)
        head(x, torch.randint(0, classes, (BATCH,))).backward()
        optimizer.step()

    torch.set_num_threads(1)
    step()
    step()
    settled = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    cpu, wall = [], []
    for _ in range(runs):
        start = time.process_time(), time.perf_counter()
        step()
        cpu.append(1e3 * (time.process_time() - start[0]))
        wall.append(1e3 * (time.perf_counter() - start[1]))
    return {
        "classes": classes,
        "rate": rate,
        "cpu_ms": {"median": statistics.median(cpu), "min": min(cpu), "max": max(cpu)},
        "wall_ms": {"median": statistics.median(wall), "min": min(wall), "max": max(wall)},
        "centers_and_momentum_mb": 2 * classes * DIM * 4 / 1e6,
        "resident_mb": {"before": loaded / 1e6, "after_two_steps": settled / 1e6},
        "growth_of_peak_mb": (_status("VmHWM") - settled) / 1e6,
    }


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "partial_fc.json")
    parser.add_argument("--case", nargs=2, type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(int(args.case[0]), args.case[1], args.runs)))
        return
    about, results = harness.about(threads=1), []
    for classes in CLASSES:
        for rate in RATES:
            command = [sys.executable, __file__, "--runs", str(args.runs), "--case", str(classes), str(rate)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    report = {"benchmark": "partial_fc", "batch": BATCH, "dim": DIM, "runs": args.runs, **about, "results": results}
    harness.write(report, args.json)


if __name__ == "__main__":
    main()
