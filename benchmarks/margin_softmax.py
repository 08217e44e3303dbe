"""ArcFace forward and backward: the streamed head against plain autograd of the same formula, and against three GEMMs.

    python benchmarks/margin_softmax.py [--runs 7] [--threads 1] [--json FILE]

Times alternate between the three in one process, so that a busy machine hurts them alike. With one thread, the default,
they are CPU time and do not depend on what else runs; with more they are wall time, for a machine of its own. Memory is
the growth of the peak resident size (VmHWM) over one step, each in a process of its own; the gradient of the centers is
included. Gradients are compared with autograd in float64, and in float32 both are compared with that.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import harness
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from visavis.losses.heads.arcface import ArcFaceHead
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax

BATCH, DIM, SCALE, MARGIN = 64, 512, 64.0, 0.5
CLASSES = (10_575, 85_742)


def plain_loss(x: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """The formula as one writes it in PyTorch; only the B target entries go through the margin."""
    cosine = normalize(x) @ normalize(weight).t()
    target = cosine[torch.arange(len(x)), labels]
    sine = (1 - target * target).clamp_min(1e-7).sqrt()
    psi = target * math.cos(MARGIN) - sine * math.sin(MARGIN)
    psi = torch.where(target >= -math.cos(MARGIN), psi, target - MARGIN * math.sin(MARGIN))
    return cross_entropy(cosine.scatter(1, labels[:, None], psi[:, None]) * SCALE, labels)


class Case:
    """One set of tensors and the three ways to spend a step on it."""

    def __init__(self, classes: int, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.head = MarginSoftmax(ArcFaceHead(scale=SCALE, margin=MARGIN), num_classes=classes, dim=DIM).to(dtype)
        self.labels = torch.randint(0, classes, (BATCH,))
        # Embeddings around their centers, as in training that has begun.
        near = normalize(self.head.weight.detach()[self.labels]) + normalize(torch.randn(BATCH, DIM, dtype=dtype))
        self.x = (20 * near).requires_grad_()
        self.other = torch.randn(BATCH, classes, dtype=dtype) if dtype == torch.float32 else None

    def streamed(self) -> None:
        """One forward and backward of the head."""
        self.clear()
        self.head(self.x, self.labels).backward()

    def plain(self) -> None:
        """One forward and backward of the plain formula."""
        self.clear()
        plain_loss(self.x, self.head.weight, self.labels).backward()

    def gemms(self) -> None:
        """The three products no implementation can avoid."""
        assert self.other is not None
        with torch.no_grad():
            _ = self.x @ self.head.weight.t()
            _ = self.other @ self.head.weight
            _ = self.other.t() @ self.x

    def clear(self) -> None:
        """Forget the gradients."""
        self.head.weight.grad = self.x.grad = None


def timings(case: Case, runs: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Alternate the three; medians, spreads and the median of the ratios of neighbors."""
    ways: dict[str, Callable[[], None]] = {"streamed": case.streamed, "plain": case.plain, "gemms": case.gemms}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 2):
        for name, way in ways.items():
            start = clock()
            way()
            if run >= 2:
                times[name].append(1e3 * (clock() - start))
    result: dict[str, Any] = {
        f"{name}_ms": {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in times.items()
    }
    runs_of_all = list(zip(times["streamed"], times["plain"], times["gemms"], strict=True))
    result["speedup_over_plain"] = statistics.median(plain / ours for ours, plain, _ in runs_of_all)
    result["times_gemms"] = statistics.median(ours / gemms for ours, _, gemms in runs_of_all)
    return result


def gradients(classes: int) -> dict[str, float]:
    """Largest difference of any gradient from autograd's in float64, for the three others."""
    single, double = Case(classes), Case(classes, torch.float64)
    with torch.no_grad():
        double.head.weight.copy_(single.head.weight)
        double.x.copy_(single.x)
    double.plain()
    truth = (double.head.weight.grad, double.x.grad)
    found = {}
    for name, case, way in (
        ("streamed_float64", double, "streamed"),
        ("streamed_float32", single, "streamed"),
        ("plain_float32", single, "plain"),
    ):
        getattr(case, way)()
        pairs = zip((case.head.weight.grad, case.x.grad), truth, strict=True)
        found[name] = max((ours - theirs).abs().max().item() for ours, theirs in pairs if ours is not None)
    return found


def peak_bytes(way: str, classes: int) -> int:
    """Growth of the peak resident size over a step, in a process of its own."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_peak, args=(way, classes, sender))
    process.start()
    peak = receiver.recv()
    process.join()
    return peak


def _measure_peak(way: str, classes: int, sender: Connection) -> None:
    """Warm the libraries up on a small case, reset the high-water mark, take one step."""
    getattr(Case(1000), way)()
    case = Case(classes)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    getattr(case, way)()
    sender.send(_status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "margin_softmax.json")
    args = parser.parse_args()
    torch.set_num_threads(1)  # children of a process that has started more may hang
    ways = ("streamed", "plain")
    peaks = {classes: {way: [peak_bytes(way, classes) for _ in range(5)] for way in ways} for classes in CLASSES}
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    results = []
    for classes in CLASSES:
        median = {way: statistics.median(values) for way, values in peaks[classes].items()}
        results.append(
            {
                "batch": BATCH,
                "dim": DIM,
                "classes": classes,
                **timings(Case(classes), args.runs, clock),
                "peak_mb": {way: value / 1e6 for way, value in median.items()},
                "peak_mb_runs": {way: [value / 1e6 for value in values] for way, values in peaks[classes].items()},
                "memory_ratio": median["streamed"] / median["plain"],
                "gradient_error": gradients(classes),
            }
        )
    measured = "CPU time of one thread" if args.threads == 1 else f"wall time of {args.threads} threads"
    about = harness.about(threads=args.threads, runs=args.runs, times=measured)
    report = {"benchmark": "margin_softmax", **about, "results": results}
    harness.write(report, args.json)


if __name__ == "__main__":
    main()
