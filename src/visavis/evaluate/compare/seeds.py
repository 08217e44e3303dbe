"""Runs that differ by their seed only: the spread a single figure hides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.evaluate.compare.comparison import check_same
from visavis.evaluate.compare.saved import SavedEvaluation, read_evaluation
from visavis.evaluate.environment import environment
from visavis.evaluate.report.report import Report
from visavis.evaluate.report.tables import Table, percent
from visavis.metrics.paired_tests import seed_effect


def compare_seeds(first: Sequence[Path], second: Sequence[Path]) -> Report:
    """Mean and spread of two groups of runs and an exact permutation test between them, for accuracy and each TMR.

    Raises:
        ProtocolError: the runs were judged on different comparisons, or are too few or too many.
    """
    groups = [[read_evaluation(path) for path in paths] for paths in (first, second)]
    for run in (*groups[0][1:], *groups[1]):
        check_same(groups[0][0], run)
    names = ["accuracy"] + [k for k in _figures(groups[0][0]) if k != "accuracy"]
    rows, tests = [], {}
    for name in names:
        a, b = ([_figures(e)[name] for e in group] for group in groups)
        if any(v is None for v in (*a, *b)):
            continue
        effect = seed_effect([float(v) for v in a if v is not None], [float(v) for v in b if v is not None])
        tests[name] = {
            "first": list(effect.first),
            "second": list(effect.second),
            "difference": effect.difference,
            "p_value": effect.p_value,
        }
        label = name if name == "accuracy" else f"TMR at FMR {name}"
        rows.append(
            (
                label,
                _spread(effect.first),
                _spread(effect.second),
                f"{100 * effect.difference:+.2f}",
                f"{effect.p_value:.3f}",
            )
        )
    title = f"{len(first)} runs of {groups[0][0].label} against {len(second)} of {groups[1][0].label}"
    note = "Mean ± standard deviation over seeds (divisor n − 1); p of the exact permutation test of the means."
    table = Table(title, ("figure", "first", "second", "difference", "p"), tuple(rows), note)
    return Report(
        compares=True,
        protocol="seeds",
        model={"name": f"{groups[0][0].label} · {groups[1][0].label}"},
        results={"seed_effect": tests},
        tables=(table,),
        warnings=tuple(dict.fromkeys(f"{e.label}: {w}" for group in groups for e in group for w in e.warnings)),
        context={"environment": environment()},
    )


def _figures(evaluation: SavedEvaluation) -> dict[str, float | None]:
    found = evaluation.found
    return {"accuracy": None if evaluation.of_templates else found.accuracy} | {
        n: None if p is None else p.tmr for n, p in found.tmr_at_fmr.items()
    }


def _spread(values: tuple[float, ...]) -> str:
    mean = percent(float(np.mean(values)))
    return mean if len(values) < 2 else f"{mean} ± {100 * float(np.std(values, ddof=1)):.2f}"
