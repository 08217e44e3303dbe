"""Evaluation at the size of the field's sets, with random features: CPU seconds, memory beyond the inputs, agreement.

    python benchmarks/evaluation.py [--small] [--out benchmarks/results/evaluation.json]

IJB-C's real size: 469,375 pictures of 512-d, 23,124 templates, 15,658,489 comparisons. `--small` is a hundredth of it.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np

from visavis.evaluate.presets import PRESETS, pair_measure, run_preset
from visavis.evaluate.protocols.integer_lists import read_integers
from visavis.metrics.error_rates import error_curve
from visavis.metrics.fusion import Pooling, compare_templates, pool_templates
from visavis.metrics.identification import search
from visavis.metrics.verification import pair_similarities, verify_pairs, verify_scores
from visavis.types import Pairs

RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def timed(work: Callable[[], Any], repeats: int) -> tuple[dict[str, Any], Any]:
    """CPU seconds of `work`: median, lowest and highest of `repeats`, and its last result."""
    seconds, result = [], None
    for _ in range(repeats):
        result = None
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return {"cpu_seconds": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}, result


def peak_gb() -> float:
    """The highest memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Random unit rows, made block by block."""
    rows = np.empty((count, dim), np.float32)
    for start in range(0, count, 8192):
        block = rng.standard_normal((min(8192, count - start), dim), dtype=np.float32)
        rows[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def ijb(scale: float, repeats: int) -> dict[str, Any]:
    """From picture features to the table of TAR at FAR."""
    rng = np.random.default_rng(0)
    images, templates, comparisons = (max(int(n * scale), 300) for n in (469_375, 23_124, 15_658_489))
    features = unit_rows(rng, images, 512)
    template = np.sort(np.concatenate([np.arange(templates), rng.integers(0, templates, images - templates)]))
    media = np.sort(template * 8 + rng.integers(0, 5, images))
    order = rng.permutation(templates)
    gallery, probes = order[: templates * 3531 // 23_124], order[templates * 3531 // 23_124 :]
    reference = gallery[rng.integers(0, len(gallery), comparisons)].astype(np.int32)
    probe = probes[rng.integers(0, len(probes), comparisons)].astype(np.int32)
    genuine = np.zeros(comparisons, bool)
    genuine[rng.choice(comparisons, max(comparisons * 19_557 // 15_658_489, 2), replace=False)] = True
    pooling = Pooling(np.arange(images), template, media)
    scores = rng.random(images).astype(np.float32)
    before = peak_gb()

    def work() -> tuple[np.ndarray, np.ndarray, list[float]]:
        vectors = pool_templates(features, pooling, weights=scores)
        similarity = compare_templates(vectors, reference, probe)
        curve = error_curve(similarity, genuine)
        return vectors, similarity, [curve.at_fmr(f).tmr for f in RATES]

    cost, (vectors, similarity, table) = timed(work, repeats)
    sample = rng.integers(0, comparisons, 2000)
    exact = np.einsum("nd,nd->n", vectors[reference[sample]].astype(float), vectors[probe[sample]].astype(float))
    return {
        **cost,
        "memory_beyond_inputs_gb": peak_gb() - before,
        "pictures": images,
        "templates": templates,
        "comparisons": comparisons,
        "tar": dict(zip(map(str, RATES), table, strict=True)),
        "largest_error_of_2000_scores": float(np.abs(similarity[sample] - exact).max()),
    }


def parsing(scale: float, repeats: int) -> dict[str, Any]:
    """The comparison list as text, then from its binary copy."""
    rng = np.random.default_rng(1)
    lines = max(int(15_658_489 * scale), 1000)
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "pairs.txt", Path(folder) / "cache"
        with path.open("wb") as file:
            for start in range(0, lines, 500_000):
                count = min(500_000, lines - start)
                block = np.stack(
                    [rng.integers(1, 140_000, count), rng.integers(1, 140_000, count), rng.integers(0, 2, count)]
                )
                file.write(b"\n".join(b"%d %d %d" % tuple(row) for row in block.T.tolist()) + b"\n")
        cost, table = timed(lambda: read_integers(path, columns=3), repeats)
        read_integers(path, columns=3, cache=cache)
        again, cached = timed(lambda: read_integers(path, columns=3, cache=cache), repeats)
        same = bool(np.array_equal(table, cached))
        head = [line.split() for line in path.read_bytes()[:200_000].split(b"\n")[:-1]]
        right = bool(np.array_equal(table[:, : len(head)].T, np.array(head, int)))
        return {
            "text": cost,
            "binary_copy": again,
            "lines": lines,
            "megabytes": path.stat().st_size / 1e6,
            "equal": same and right,
        }


def large_pairs(scale: float, repeats: int) -> dict[str, Any]:
    """600,000 pairs: similarities in chunks, then every figure."""
    rng = np.random.default_rng(2)
    count = max(int(600_000 * scale), 2000)
    x = unit_rows(rng, max(count // 20, 100), 512)
    a, b = rng.integers(0, len(x), (2, count))
    genuine = np.arange(count) % 2 == 0
    fold = np.arange(count) * 10 // count
    similar, scores = timed(lambda: pair_similarities(x, a, b), repeats)
    scores = scores + (genuine * 0.2).astype(np.float32)
    cost, _ = timed(lambda: verify_scores(scores, genuine, fold).to_dict(), repeats)
    return {"similarities": similar, "metrics": cost, "pairs": count}


def small_pairs(repeats: int) -> dict[str, Any]:
    """6,000 pairs of 512-d: every figure and all presets; a threshold grid over folds in plain NumPy beside it."""
    rng = np.random.default_rng(3)
    x = unit_rows(rng, 7700, 512)
    a, b = rng.integers(0, len(x), (2, 6000))
    genuine = np.arange(6000) // 300 % 2 == 0
    x[b[genuine]] = 0.6 * x[b[genuine]] + 0.4 * x[a[genuine]]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pairs = Pairs(tuple(map(str, range(len(x)))), a, b, genuine, np.arange(6000) // 600)

    def ours() -> None:
        found = verify_pairs(x, pairs)
        found.to_dict()
        for preset in PRESETS.values():
            run_preset(pair_measure(x, a, b, preset, dots=found.similarities), genuine, preset).to_dict(preset)

    metrics, _ = timed(lambda: verify_pairs(x, pairs).to_dict(), repeats)
    everything, _ = timed(ours, repeats)
    grid, _ = timed(lambda: grid_reference(x, a, b, genuine), max(1, min(repeats, 3)))
    ratio = grid["cpu_seconds"] / everything["cpu_seconds"]
    return {"metrics": metrics, "metrics_and_presets": everything, "threshold_grid": grid, "ratio": ratio}


def grid_reference(x: np.ndarray, a: np.ndarray, b: np.ndarray, genuine: np.ndarray) -> float:
    """Row A6's rule as it is usually written: every threshold of two grids on every fold, one after another."""
    distance = np.sum(np.square(x[a] - x[b]), 1)
    accuracies = []
    for fold in range(10):
        test = np.zeros(len(a), bool)
        test[600 * fold : 600 * fold + 600] = True
        rates = [np.mean((distance[~test] < t) == genuine[~test]) for t in np.arange(0, 4, 0.01)]
        accuracies.append(np.mean((distance[test] < 0.01 * int(np.argmax(rates))) == genuine[test]))
        for t in np.arange(0, 4, 0.001):
            match = distance[~test] < t
            np.sum(match & ~genuine[~test])
    return float(np.mean(accuracies))


def large_gallery(scale: float) -> dict[str, Any]:
    """1:N with a million gallery entries that never are in memory together."""
    entries, block = max(int(1_000_000 * scale), 10_000), 8192
    rng = np.random.default_rng(4)
    probes = unit_rows(rng, 256, 512)
    subjects = rng.integers(0, entries, len(probes))
    base = unit_rows(rng, block, 512)

    def gallery():
        for start in range(0, entries, block):
            count = min(block, entries - start)
            yield np.roll(base[:count], start // block % 512, axis=1), np.arange(start, start + count)

    def drawing() -> None:
        for _ in gallery():
            pass

    before = peak_gb()
    cost, found = timed(lambda: search(probes, subjects, gallery), 1)
    made, _ = timed(drawing, 1)
    return {
        "cpu_seconds": cost["cpu_seconds"] - 2 * made["cpu_seconds"],
        "of_which_not_counted_making_vectors": 2 * made["cpu_seconds"],
        "memory_beyond_inputs_gb": peak_gb() - before,
        "entries": entries,
        "probes": len(probes),
        "mated": int(found.mated.sum()),
    }


def main() -> None:
    """Run everything, print and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a hundredth of the size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", metavar="PART", help="run these parts, keep the others of --out")
    args = parser.parse_args()
    scale = 0.01 if args.small else 1.0
    body = harness.about(scale=scale, repeats=args.repeats)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "pairs_6000": lambda: small_pairs(max(args.repeats, 5)),
        "pairs_600000": lambda: large_pairs(scale, args.repeats),
        "ijb_c_size": lambda: ijb(scale, args.repeats),
        "list_of_comparisons": lambda: parsing(scale, args.repeats),
        "gallery_1m": lambda: large_gallery(scale),
    }
    if args.only and args.out and args.out.is_file():
        body = {**json.loads(args.out.read_text()), **body}
    for name in args.only or parts:
        body[name] = parts[name]()
        print(name, json.dumps(body[name], indent=2), flush=True)
        if args.out:
            harness.write(body, args.out, show=False)


if __name__ == "__main__":
    main()
