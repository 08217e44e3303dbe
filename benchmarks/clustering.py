"""Grouping faces by person: pair precision and recall on people the threshold was not fixed on, and 100,000 faces.

    visavis import ../shared/weights/mobilefacenet_casia_112x96.ckpt --out mbf
    python benchmarks/clustering.py --model mbf --data ../shared/lfw-dev [--faces 100000]

The people of `--data` are halved: on one half the threshold is fixed (the FMR of all pairs), the pictures of the other
half, at most 16 of a person and most people with a single one, are grouped by

- visavis: `clustering.cluster`, average linkage along a graph of 64 neighbors,
- average linkage over all pairs (SciPy), cut at the same threshold,
- connected pairs: everything joined by pairs above the threshold (single linkage),
- HDBSCAN (scikit-learn, groups of 2 and more), which takes no threshold.

A pair of pictures counts as joined when both are in one group; precision is the share of joined pairs that are of one
person, recall the share of one person's pairs that are joined. A group is mixed when it holds two people. Then as many
generated unit vectors as `--faces`, ten of a person, are grouped in a process of its own. Writes
results/clustering.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, about, write
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import HDBSCAN
from templates import MOST, embed

from visavis.deploy.gallery.clustering import average_linkage, neighbor_graph
from visavis.deploy.recognizer import Recognizer

RATES = (1e-3, 1e-4)
DIM = 128


def pair_threshold(rows: np.ndarray, person: np.ndarray, rate: float) -> float:
    """The similarity above which `rate` of the pairs of different people lie."""
    first, second = np.triu_indices(len(rows), 1)
    impostor = np.concatenate(
        [
            (rows[a] * rows[b]).sum(1)[person[a] != person[b]]
            for a, b in zip(np.array_split(first, 64), np.array_split(second, 64), strict=True)
        ]
    )
    return float(np.partition(impostor, -1 - int(rate * len(impostor)))[-1 - int(rate * len(impostor))])


def pairs(labels: Any) -> int:
    """How many pairs bear one label."""
    return sum(count * (count - 1) // 2 for count in Counter(labels).values())


def judge(labels: np.ndarray, person: np.ndarray) -> dict[str, Any]:
    """Pair precision and recall of a grouping, and its mixed groups."""
    joined = pairs(labels.tolist())
    right = pairs(zip(labels.tolist(), person.tolist(), strict=True))
    sizes = Counter(labels.tolist())
    people = {label: len(set(person[labels == label].tolist())) for label, size in sizes.items() if size > 1}
    return {
        "pair precision": right / joined if joined else 1.0,
        "pair recall": right / pairs(person.tolist()),
        "groups": len(people),
        "mixed groups": sum(count > 1 for count in people.values()),
        "most people in one": max(people.values(), default=1),
    }


def ways(rows: np.ndarray, threshold: float) -> dict[str, Callable[[], np.ndarray]]:
    """Labels by each way of grouping."""
    distance = np.clip(1 - (rows.astype(np.float64) @ rows.T)[np.triu_indices(len(rows), 1)], 0, None)

    def cut(method: str) -> np.ndarray:
        return fcluster(linkage(distance, method), 1 - threshold, "distance")

    return {
        "visavis": lambda: average_linkage(rows, neighbor_graph(rows, threshold), threshold),
        "average linkage over all pairs": lambda: cut("average"),
        "connected pairs": lambda: cut("single"),
    }


def hdbscan(rows: np.ndarray) -> np.ndarray:
    """HDBSCAN's labels; what it calls noise is alone."""
    labels = HDBSCAN(min_cluster_size=2, copy=True).fit_predict(rows.astype(np.float64))  # pyright: ignore[reportArgumentType]
    alone = labels < 0
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    return labels


def real(model: str, root: Path) -> dict[str, Any]:
    """Every way on the half of the people that the threshold was not fixed on."""
    folders = [sorted(folder.iterdir())[:MOST] for folder in sorted(root.iterdir())]
    rows = embed(Recognizer.load(model, threads=1), [file for files in folders for file in files])
    person = np.repeat(np.arange(len(folders)), [len(files) for files in folders])
    tune = np.isin(person, np.random.default_rng(0).permutation(len(folders))[: len(folders) // 2])
    rest, whose = rows[~tune], person[~tune]
    found: dict[str, Any] = {
        "pictures": len(rest),
        "people": len(np.unique(whose)),
        "HDBSCAN": judge(hdbscan(rest), whose),
    }
    for rate in RATES:
        threshold = pair_threshold(rows[tune], person[tune], rate)
        each = {name: judge(way(), whose) for name, way in ways(rest, threshold).items()}
        found[f"FMR {rate:g}"] = {"threshold": threshold, **each}
    return found


def generated(count: int) -> dict[str, Any]:
    """Group `count` vectors, ten of a person, at the FMR of 1e-3 that vectors of this length have."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(count // 10), 10)
    centers = rng.standard_normal((count // 10, DIM), np.float32) / np.sqrt(DIM)
    rows = centers[person] + 1.2 * rng.standard_normal((len(person), DIM), np.float32) / np.sqrt(DIM)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    begun = time.process_time()
    edges = neighbor_graph(rows, 0.28)
    graph = time.process_time() - begun
    labels = average_linkage(rows, edges, 0.28)
    return {
        "faces": count,
        "length": DIM,
        "pairs in the graph": len(edges.first),
        "graph, CPU s": graph,
        "linkage, CPU s": time.process_time() - begun - graph,
        "memory before, GB": before,
        "most memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "all pairs would take, GB": count * count * 4 / 1e9,
        "pair precision": pairs(zip(labels.tolist(), person.tolist(), strict=True)) / pairs(labels.tolist()),
        "pair recall": pairs(zip(labels.tolist(), person.tolist(), strict=True)) / pairs(person.tolist()),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--data", type=Path, help="a folder with images/ of aligned 112×112 crops")
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--only-generated", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "clustering.json")
    args = parser.parse_args()
    if args.only_generated:
        print(json.dumps(generated(args.faces)))
        return
    command = [sys.executable, __file__, "--only-generated", "--faces", str(args.faces)]
    large = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    settings = {"model": Path(args.model).name, "data": args.data.name}
    write(
        {**about(threads=1, **settings), "real people": real(args.model, args.data / "images"), "large": large},
        args.out,
    )


if __name__ == "__main__":
    main()
