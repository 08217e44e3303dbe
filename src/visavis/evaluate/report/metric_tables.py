"""Figures of `metrics` as tables and plots: thresholds, score calibration, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.tables import Table, percent, percent_range
from visavis.metrics.calibration import CalibratedThreshold
from visavis.metrics.error_rates import Float64, rate_name
from visavis.metrics.intervals import wilson
from visavis.metrics.score_calibration import Reliability


def threshold_table(found: Sequence[CalibratedThreshold]) -> Table:
    """Thresholds with what they gave."""
    rows = tuple(
        (
            f"FMR {rate_name(c.target)}",
            f"{c.threshold:.4f}",
            " – ".join(f"{v:.4f}" for v in c.threshold_interval),
            percent(c.fmr, 3),
            percent_range(c.fmr_interval, 3),
            percent(c.tmr),
        )
        for c in found
    )
    columns = ("calibrated for", "threshold", "95 %", "FMR here", "95 %", "TMR")
    return Table("Calibrated thresholds", columns, rows, f"Set {found[0].digest}." if found and found[0].digest else "")


def calibration_figures(found: dict[str, Reliability]) -> tuple[Table, Plot]:
    """A table and the reliability diagram."""
    rows = tuple(
        (name, percent(r.expected_calibration_error), f"{r.brier:.4f}", f"{r.log_loss:.4f}")
        for name, r in found.items()
    )
    note = "Each fold judged by maps fitted on the others, at the set's own share of genuine comparisons."
    table = Table("Score to probability", ("map", "expected calibration error", "Brier", "log loss (bits)"), rows, note)
    points = tuple(Series(name, r.predicted, r.observed, "points", _intervals(r)) for name, r in found.items())
    note = "Bars: 95 % intervals (Wilson) of the share in each of 15 bins of predicted probability."
    return table, Plot("reliability", "Reliability", "predicted probability", "share genuine", points, note=note)


def _intervals(found: Reliability) -> Float64:
    """Lower and upper ends (2, bins) of each bin's share of genuine comparisons."""
    ends = [wilson(round(share * n), n) for share, n in zip(found.observed, found.count.tolist(), strict=True)]
    return np.array(ends).T


def group_table(column: str, body: Mapping[str, Any]) -> Table:
    """What `group_report` found in one column, worst group first."""
    rows = [
        (
            group["group"],
            percent(group["fmr"], 3),
            percent_range(group["fmr_interval"], 3),
            percent(group["fnmr"]),
            percent_range(group["fnmr_interval"]),
            f"{group['genuine']:,} / {group['impostor']:,}",
        )
        for group in body["groups"]
    ]
    ratios = []
    for kind in ("fmr", "fnmr"):
        ratio = body["differentials"][kind]["max_over_geometric_mean"]
        shown = "not defined, a rate is zero" if ratio is None else f"{ratio:.2f}"
        ratios.append(f"worst {kind.upper()} / geometric mean: {shown}")
    note = f"Common threshold {body['threshold']:.4f}. " + "; ".join(ratios) + "."
    between = body["between_groups"]
    if between["impostor"]:
        note += f" Between groups: FMR {percent(between['fmr'], 3)} of {between['impostor']:,}."
    columns = (column, "FMR", "95 %", "FNMR", "95 %", "genuine / impostor")
    return Table(f"By {column}, at one threshold", columns, tuple(rows), note)
