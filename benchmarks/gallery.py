"""The gallery at size: searching against what the machine can do at best, enrolling, opening, forgetting, memory.

    python benchmarks/gallery.py [--subjects 1000000] [--dim 512] [--only search|store] [--folder DIR]

Ratios are taken in one process, the things compared taking turns: one probe against reading the vectors once, 64 probes
against the bare product of the same matrices, lossy stores against float32, faiss as its users run it (with its BLAS
threshold set, without which it is many times slower on few probes). Subjects are random unit vectors; probes are
subjects with noise (similarity about 0.5) and strangers. Prints a table and writes results/gallery.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import numpy as np

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.vectors import Vectors

ROUNDS = 6


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--only", choices=("search", "store"))
    parser.add_argument("--folder", help="where the gallery is made (a temporary folder)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gallery.json")
    args = parser.parse_args()
    people = random_units(args.subjects, args.dim, seed=0)
    result: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    result |= about(args)
    if args.only != "store":
        result["search"] = search(people)
    if args.only != "search":
        result["store"] = store(people, args.folder)
    harness.write(result, args.out, show=False)
    print(f"written: {args.out}")


def random_units(n: int, dim: int, *, seed: int) -> np.ndarray:
    """n random rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal((n, dim), np.float32)
    for start in range(0, n, 65_536):
        part = rows[start : start + 65_536]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def take_turns(tasks: dict[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Median, least and spread of seconds of each task, and the least of processor seconds; the tasks take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            start, begun = time.perf_counter(), time.process_time()
            task()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - start)
                spent[name].append(time.process_time() - begun)
    return {
        name: {
            "median_s": statistics.median(s),
            "least_s": min(s),
            "spread_s": max(s) - min(s),
            "least_cpu_s": min(spent[name]),
        }
        for name, s in seconds.items()
    }


def search(people: np.ndarray) -> dict[str, Any]:
    """Times and recall of searching."""
    n, dim = people.shape
    rng = np.random.default_rng(1)
    known = rng.choice(n, 32, replace=False)
    noisy = people[known] + 1.7 / np.sqrt(dim) * rng.standard_normal((32, dim), np.float32)
    probes = np.concatenate([noisy, rng.standard_normal((32, dim), np.float32)]).astype(np.float32)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    stores = {}
    for precision in ("float32", "float16", "int8"):
        stores[precision] = Vectors(dim, precision=precision)  # type: ignore[arg-type]
        stores[precision].append(people)
    pool = ThreadPoolExecutor(os.cpu_count())
    parts = np.array_split(people, os.cpu_count() or 1)
    one = probes[:1]
    timed = take_turns(
        {
            "read once": lambda: list(pool.map(np.max, parts)),
            "bare product, 1 probe": lambda: people @ one[0],
            "float32, 1 probe": lambda: stores["float32"].search(one, 10),
            "float16, 1 probe": lambda: stores["float16"].search(one, 10),
            "int8, 1 probe": lambda: stores["int8"].search(one, 10),
        }
    )
    timed |= take_turns(
        {
            "bare product, 64 probes": lambda: people @ probes.T,
            "float32, 64 probes": lambda: stores["float32"].search(probes, 10),
            **faiss_flat(people, probes),
        },
        rounds=4,
    )
    timed |= take_turns({f"{p}, 64 probes": lambda p=p: stores[p].search(probes, 10) for p in ("float16", "int8")}, 2)
    truth = np.argsort(-(people @ probes.T), axis=0)[:10].T
    recall = {}
    for precision in ("float16", "int8"):
        found = stores[precision].search(probes, 10)[1]
        more = stores[precision].search(probes, 4 * 10 + 16)[1]
        recall[precision] = {
            "recall@10": overlap(found, truth),
            "recall@10 after rescoring 56": overlap(more, truth),
            "recall@1 of known": float((found[:32, 0] == known).mean()),
        }
    # On a busy machine the time on the clock says who else was working; with one thread the processor's time does not.
    clock = "least_cpu_s" if os.environ.get("OMP_NUM_THREADS") == "1" else "least_s"
    least = {name: entry[clock] for name, entry in timed.items()}
    ratios = {
        "1 probe / read once": least["float32, 1 probe"] / least["read once"],
        "1 probe / bare product": least["float32, 1 probe"] / least["bare product, 1 probe"],
        "64 probes / bare product": least["float32, 64 probes"] / least["bare product, 64 probes"],
        "float32 / float16, 1 probe": least["float32, 1 probe"] / least["float16, 1 probe"],
        "float32 / int8, 1 probe": least["float32, 1 probe"] / least["int8, 1 probe"],
    }
    show(
        "search",
        {k: f"{1000 * v['median_s']:9.1f} ms  (processor {1000 * v['least_cpu_s']:.1f})" for k, v in timed.items()},
    )
    show(f"ratios of {clock}", {k: f"{v:9.2f}" for k, v in ratios.items()})
    show("recall", {p: json.dumps(r) for p, r in recall.items()})
    sizes = {p: s.nbytes for p, s in stores.items()}
    return {
        "subjects": n,
        "dim": dim,
        "ratios_of": clock,
        "seconds": timed,
        "ratios": ratios,
        "recall": recall,
        "bytes": sizes,
    }


def faiss_flat(people: np.ndarray, probes: np.ndarray) -> dict[str, Callable[[], Any]]:
    """faiss's exact index over the same memory, if installed."""
    try:
        import faiss
    except ImportError:
        return {}
    faiss.cvar.distance_compute_blas_threshold = 20
    return {"faiss.knn, 64 probes": lambda: faiss.knn(probes, people, 10, metric=faiss.METRIC_INNER_PRODUCT)}


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true neighbors that were found."""
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), truth.tolist(), strict=True)]))


def store(people: np.ndarray, folder: str | None) -> dict[str, Any]:
    """Enrolling, opening, identifying and forgetting on disk."""
    n, dim = people.shape
    place = Path(tempfile.mkdtemp(dir=folder))
    model = ModelIdentity("benchmark", dim, "b" * 64)
    answer: dict[str, Any] = {"subjects": n, "dim": dim}
    try:
        with Gallery(place / "g.db", model, create=True) as gallery:
            seconds = timed_once(lambda: gallery.enroll_many([f"subject {i}" for i in range(n)], people))
            answer["enrolled per second, 10,000 a transaction"] = n / seconds
            answer["first index, and writing the templates beside the gallery, s"] = timed_once(gallery.refresh)
        answer["file bytes"] = (place / "g.db").stat().st_size
        answer["file bytes / vector bytes"] = answer["file bytes"] / people.nbytes
        before = resident()
        begun, spent = time.perf_counter(), time.process_time()
        with Gallery(place / "g.db", model) as gallery:
            gallery.refresh()
            answer["open and index, s"] = time.perf_counter() - begun
            answer["open and index, processor s"] = time.process_time() - spent
            probe = people[n // 2]
            answer["first identify after opening, s"] = timed_once(lambda: gallery.identify(probe, threshold=0.5))
            while gallery.unverified:
                time.sleep(0.05)
            answer["until every checksum is read and every row in memory, s"] = time.perf_counter() - begun
            answer["index memory, bytes / vector bytes"] = (resident() - before) / people.nbytes
            times = [timed_once(lambda: gallery.identify(probe, threshold=0.5, top=5)) for _ in range(11)][1:]
            bare = [timed_once(lambda: people @ probe) for _ in range(11)][1:]
            answer["identify, 1 probe, median s"] = statistics.median(times)
            answer["identify / bare product"] = min(times) / min(bare)
            singles = [timed_once(lambda i=i: gallery.enroll(f"new {i}", people[i])) for i in range(30)]
            answer["one acknowledged enrollment, median s"] = statistics.median(singles)
            answer["found right after enrolling"] = gallery.search(people[3], top=2)[0][0].similarity > 0.999
            answer["forget with VACUUM and search for traces, s"] = timed_once(lambda: gallery.forget("new 7"))
        answer["peak memory, bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    finally:
        shutil.rmtree(place)
    show("store", {k: f"{v:,.4g}" if isinstance(v, float) else str(v) for k, v in answer.items()})
    return answer


def timed_once(task: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, commit."""
    arguments = {"subjects": args.subjects, "dim": args.dim}
    return harness.about(packages=["faiss-cpu"], what="gallery", arguments=arguments)


def show(title: str, rows: dict[str, str]) -> None:
    """Print a small table."""
    print(title)
    for name, value in rows.items():
        print(f"  {name:48} {value}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
