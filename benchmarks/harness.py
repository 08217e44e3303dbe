"""What every benchmark shares: where it ran, whose turn it is, and the file its figures go to."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from visavis.evaluate.environment import environment
from visavis.files import write_atomically
from visavis.machine import load_average

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def about(*, threads: int | str | None = None, packages: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """Machine, its load, versions (also of `packages`), time, command and commit, with what else was set."""
    found = environment()
    found["machine"] |= {"load_average": load_average(), "threads": threads or os.environ.get("OMP_NUM_THREADS", "all")}
    found["versions"] |= {package: version(package) for package in packages}
    return {**found, "commit": commit(), **settings}


def commit() -> str:
    """The commit of the code, with a + when it was changed since; "unknown" outside a repository."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude", "*"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or "unknown"


def take_turns(
    tasks: Mapping[str, Callable[[], Any]],
    runs: int,
    *,
    clock: Callable[[], float] = time.process_time,
    warm: int = 1,
    count: int = 1,
) -> dict[str, dict[str, float]]:
    """Time each task `runs` times, one after the other in every round, so that a busy minute hits all alike.

    Args:
        tasks: what to time, by name.
        runs: rounds, after `warm` that are not counted.
        clock: process_time counts this process's work alone; perf_counter what somebody waits.
        warm: rounds before.
        count: how many things a task does; the seconds are of one.

    Returns:
        Per task `median`, `min`, `max` and `spread` (the middle half's width over the median), in seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warm + runs):
        for name, task in tasks.items():
            start = clock()
            task()
            if turn >= warm:
                seconds[name].append((clock() - start) / count)
    return {name: summary(took) for name, took in seconds.items()}


def summary(values: list[float]) -> dict[str, float]:
    """Median, extremes, and the width of the middle half in parts of the median."""
    median = statistics.median(values)
    quarters = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [median] * 3
    spread = (quarters[2] - quarters[0]) / median if median else 0.0
    return {"median": median, "min": min(values), "max": max(values), "spread": spread}


def write(result: Mapping[str, Any], path: str | os.PathLike[str], *, show: bool = True) -> None:
    """Store a result, and print it where `show`."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    if show:
        print(text)
    write_atomically(path, text.encode() + b"\n")
