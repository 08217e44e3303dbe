"""The course of a training run, from its metrics.jsonl, as plots for the report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visavis.errors import DataError
from visavis.evaluate.report.figures import Plot, Series

METRICS = "metrics.jsonl"
_CURVES = (("loss", "Loss"), ("lr", "Learning rate"), ("images_per_second", "Pictures per second"))


def read_metrics(run: str | os.PathLike[str], *, missing_ok: bool = False) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl; a last line cut off by a crash is left out. Empty where the file may be missing.

    Raises:
        DataError: the file is missing, or a line before the last is not a JSON object.
    """
    path = Path(run) / METRICS
    if missing_ok and not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the course of the training ({error})") from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(
                f"{path}, line {number}: expected a JSON object, got {line[:60]!r}; remove the line"
            ) from error
        if isinstance(record, dict):
            records.append(record)
    return records


def training_plots(run: str | os.PathLike[str]) -> tuple[Plot, ...]:
    """Loss, learning rate, speed and held-out accuracy over steps: those that the run recorded."""
    records = read_metrics(run)
    plots = []
    for key, title in _CURVES:
        x, y = _column(records, key)
        if len(x) > 1:
            plots.append(Plot(f"training: {key}", title, "step", key.replace("_", " "), (_smoothed(key, x, y, title),)))
    judged = [(r["step"], r["eval"]) for r in records if isinstance(r.get("eval"), Mapping) and "step" in r]
    for key, title in (("accuracy", "Held-out pair accuracy"), ("top1", "Top-1 of the people trained on")):
        accuracy = [(step, a) for step, found in judged if (a := _figure(found, key)) is not None]
        if accuracy:
            x, y = (np.array(c, np.float64) for c in zip(*accuracy, strict=True))
            line = Series("held-out accuracy" if key == "accuracy" else "top-1", x, 100 * y,
                          "line" if len(x) > 1 else "points")  # fmt: skip
            plots.append(Plot(f"training: {key}", title, "step", "accuracy (%)", (line,)))
    return tuple(plots)


def _column(records: Iterable[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(r["step"], r[key]) for r in records if isinstance(r.get(key), (int, float)) and "step" in r]
    table = np.array(rows, np.float64).reshape(-1, 2)
    good = np.isfinite(table).all(axis=1)
    return table[good, 0], table[good, 1]


def _smoothed(key: str, x: np.ndarray, y: np.ndarray, title: str) -> Series:
    """At most about 400 points: means of equal runs of steps."""
    run = -(-len(x) // 400)
    whole = len(x) // run * run
    return Series(title, x[:whole].reshape(-1, run).mean(axis=1), y[:whole].reshape(-1, run).mean(axis=1))


def _figure(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    value = value.get("mean") if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, (int, float)) else None
