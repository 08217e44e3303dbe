"""How a run's figures changed from checkpoint to checkpoint: a table, newest first, and accuracy over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.report import Report, key_figures
from visavis.evaluate.report.tables import Table


def with_history(report: Report, history: Sequence[tuple[int, str, Mapping[str, Any]]]) -> Report:
    """A report with the results (step, model, results) of all kept checkpoints behind its own, as `history` in JSON.

    Accuracy is drawn over steps with its 95 % intervals where the protocol has one.
    """
    columns = [name for name, _ in key_figures(history[0][2])]
    figures = [(step, dict(key_figures(found))) for step, _, found in history]
    rows = tuple((f"{step:,}", *(row.get(name, "–") for name in columns)) for step, row in figures)
    table = Table("Checkpoints, newest first", ("step", *columns), rows)
    records = [{"step": step, "model": model, **_figures(found)} for step, model, found in history]
    rising = sorted((r["step"], r["accuracy"]) for r in records if isinstance(r.get("accuracy"), Mapping))
    return report.with_additions(
        tables=(table,), plots=(_plot(rising),) if rising else (), context={"history": records}
    )


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("accuracy", "auc", "eer", "tmr_at_fmr", "threshold") if key in found}


def _plot(rising: Sequence[tuple[int, Mapping[str, Any]]]) -> Plot:
    x = np.array([step for step, _ in rising], np.float64)
    y = np.array([100 * a["mean"] for _, a in rising])
    interval = np.array([[100 * end for end in a["interval"]] for _, a in rising]).T
    series = (Series("checkpoints", x, y, "points", interval), Series("accuracy", x, y))
    return Plot("history: accuracy", "Accuracy over steps", "step", "accuracy (%)", series)
