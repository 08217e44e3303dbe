"""Time every miner against plain Python loops and pytorch-metric-learning: python benchmarks/miners.py [--out FILE].

Two scenes per batch shape, because the cost of a miner depends on how much there is to find: `hard` is an untrained
network (almost every triplet violates the margin), `trained` one after softmax (few do); and two embedding sizes, since
the product that gives the distances, ours and the library's, is the larger part of the cheap miners at 512. Everything
runs on one core in one process; only the ratios matter.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from visavis.losses.triplets import MINERS
from visavis.losses.triplets.distances import squared_l2, unit_rows

MARGIN, DIMS = 0.25, (128, 512)
SHAPES = ((41, 5), (210, 4))
NOISE = {"hard": 1.5, "trained": 0.75}


def scene(identities: int, images: int, noise: float, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows around random centers that share a direction, as faces do, and their labels."""
    rng = torch.Generator().manual_seed(0)
    centers = unit_rows(torch.randn(identities, dim, generator=rng) + 1.0)
    labels = torch.arange(identities).repeat_interleave(images)
    x = centers[labels] + noise * torch.randn(len(labels), dim, generator=rng) / dim**0.5
    return unit_rows(x), labels


def loop_batch_all(d: Any, y: Any) -> Any:
    """{(a, p, n)} with three nested loops."""
    out = []
    for a in range(len(y)):
        for p in range(len(y)):
            if p != a and y[p] == y[a]:
                limit = d[a, p] + MARGIN
                out += [(a, p, n) for n in range(len(y)) if y[n] != y[a] and d[a, n] < limit]
    return np.array(out)


def per_pair(d: Any, y: Any, choose: Callable[[Any, Any], int]) -> Any:
    """One negative per genuine pair, NumPy inside the loops (as the published code)."""
    out = []
    for a in range(len(y)):
        others = y != y[a]
        for p in range(len(y)):
            if p != a and y[p] == y[a]:
                found = np.where(others & (d[a] < d[a, p] + MARGIN))[0]
                if len(found):
                    out.append((a, p, choose(d[a], found)))
    return np.array(out)


def per_anchor(d: Any, y: Any, *, mildest: bool) -> Any:
    """min-min and min-max: per anchor the pair whose smallest gap is smallest or largest."""
    out = []
    for a in range(len(y)):
        others, best = y != y[a], None
        for p in range(len(y)):
            if p != a and y[p] == y[a]:
                found = np.where(others & (d[a] < d[a, p] + MARGIN))[0]
                if len(found):
                    n = found[d[a][found].argsort()[0]]
                    gap = d[a, n] - d[a, p]
                    if best is None or (gap > best[0] if mildest else gap < best[0]):
                        best = (gap, a, p, n)
        if best is not None:
            out.append(best[1:])
    return np.array(out)


def loop_hardest(d: Any, y: Any) -> Any:
    """Farthest positive, closest negative."""
    out = []
    for a in range(len(y)):
        same = y == y[a]
        far, positive = -1.0, -1
        for p in range(len(y)):
            if p != a and same[p] and d[a, p] > far:
                far, positive = d[a, p], p
        out.append((a, positive, np.where(same, np.inf, d[a]).argmin()))
    return np.array(out)


_RNG = np.random.default_rng(0)
LOOPS: dict[str, Callable[[Any, Any], Any]] = {
    "batch_all": loop_batch_all,
    "batch_random": lambda d, y: per_pair(d, y, lambda row, found: _RNG.choice(found)),
    "batch_min_min": lambda d, y: per_anchor(d, y, mildest=False),
    "batch_min_max": lambda d, y: per_anchor(d, y, mildest=True),
    "batch_hardest": loop_hardest,
}


def library(x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What pytorch-metric-learning has for the same purpose; it computes the distances itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pytorch_metric_learning import distances, miners
    kind = {"distance": distances.LpDistance(power=2)}
    every = miners.TripletMarginMiner(margin=MARGIN, type_of_triplets="all", **kind)
    hardest = miners.BatchHardMiner(**kind)
    semi = miners.TripletMarginMiner(margin=MARGIN, type_of_triplets="semihard", **kind)
    weighted = miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4)
    return {
        "batch_all": lambda: every(x, y),
        "batch_hardest": lambda: hardest(x, y),
        "semi_hard": lambda: semi(x, y),
        "distance_weighted": lambda: weighted(x, y),
    }


def timed(function: Callable[[], Any], runs: int) -> dict[str, float]:
    """Median and spread in milliseconds of CPU time after one warm-up; short calls are repeated inside a run.

    One thread's CPU time is its wall time on an idle core, and does not count what other programs take.
    """
    begin = time.process_time()
    function()
    once = time.process_time() - begin
    inner = max(1, min(100, int(0.05 / max(once, 1e-6))))
    took = []
    for _ in range(runs):
        begin = time.process_time()
        for _ in range(inner):
            function()
        took.append((time.process_time() - begin) / inner * 1e3)
    return {"median_ms": statistics.median(took), "min_ms": min(took), "max_ms": max(took), "runs": runs}


def same_triplets(name: str, ours: Any, loop: Any) -> bool:
    """Whether both found the same set (the same pairs, where the negative is drawn)."""
    width = 2 if name == "batch_random" else 3
    mine = np.stack([ours.anchor, ours.positive, ours.negative], 1)[:, :width]
    other = np.asarray(loop).reshape(-1, 3)[:, :width]
    return {tuple(r) for r in mine.tolist()} == {tuple(r) for r in other.tolist()}


def measure(identities: int, images: int, kind: str, dim: int, runs: int) -> dict[str, Any]:
    """All figures of one scene."""
    x, y = scene(identities, images, NOISE[kind], dim)
    d = squared_l2(x, x)
    matrix = timed(lambda: squared_l2(x, x), runs)
    plain = {"d": d.numpy(), "y": y.numpy()}
    theirs = library(x, y)
    rows = {}
    for name, miner in MINERS.items():
        found = miner(d, y, margin=MARGIN)
        row: dict[str, Any] = {"triplets": len(found)}
        row["ours"] = timed(lambda miner=miner: miner(d, y, margin=MARGIN), runs)
        row["share_of_distance_matrix"] = row["ours"]["median_ms"] / matrix["median_ms"]
        if name in LOOPS:
            loop = LOOPS[name]
            if not same_triplets(name, found, loop(**plain)):
                raise SystemExit(f"{name} at {identities}x{images}: not what the loop finds")
            row["loop"] = timed(lambda loop=loop: loop(**plain), runs)
            row["times_faster_than_loop"] = row["loop"]["median_ms"] / row["ours"]["median_ms"]
        if name in theirs:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row["pytorch_metric_learning"] = timed(theirs[name], runs)
            row["ours_with_distances"] = timed(lambda miner=miner: miner(squared_l2(x, x), y, margin=MARGIN), runs)
            row["times_faster_than_pytorch_metric_learning"] = (
                row["pytorch_metric_learning"]["median_ms"] / row["ours_with_distances"]["median_ms"]
            )
        rows[name] = row
    return {
        "identities": identities,
        "pictures": images,
        "scene": kind,
        "dim": dim,
        "distance_matrix": matrix,
        "distance_matrix_by_torch": timed(lambda: torch.addmm(torch.full((1,), 2.0), x, x.T, alpha=-2.0), runs),
        "miners": rows,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "miners.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [measure(p, k, kind, dim, args.runs) for p, k in SHAPES for kind in NOISE for dim in DIMS]
    result = {
        "benchmark": "miners",
        **harness.about(threads=1, packages=["pytorch-metric-learning"]),
        "margin": MARGIN,
        "scenes": scenes,
    }
    harness.write(result, args.out, show=False)
    for s in scenes:
        print(
            f"\n{s['identities']} x {s['pictures']}, {s['scene']}, {s['dim']}-d: distances "
            f"{s['distance_matrix']['median_ms']:.3f} ms (by PyTorch {s['distance_matrix_by_torch']['median_ms']:.3f})"
        )
        print(f"{'miner':18} {'triplets':>9} {'ms':>8} {'of matrix':>9} {'x loop':>8} {'x PML':>8}")
        for name, r in s["miners"].items():
            loop, pml = r.get("times_faster_than_loop"), r.get("times_faster_than_pytorch_metric_learning")
            print(
                f"{name:18} {r['triplets']:9,} {r['ours']['median_ms']:8.3f} {r['share_of_distance_matrix']:9.2f} "
                f"{f'{loop:.1f}' if loop else '-':>8} {f'{pml:.1f}' if pml else '-':>8}"
            )


if __name__ == "__main__":
    main()
