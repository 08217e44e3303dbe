"""Two models on the same comparisons of templates (IJB): their true match rates at a false match rate, in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visavis.evaluate.compare.saved import SavedEvaluation
from visavis.evaluate.report.tables import Table, p_value
from visavis.metrics.error_rates import rate_name
from visavis.metrics.intervals import subject_difference
from visavis.metrics.paired_tests import mcnemar, minimum_detectable_difference


def template_test(
    first: SavedEvaluation, other: SavedEvaluation, fmrs: Sequence[float], *, replicates: int, seed: int
) -> dict[str, Any]:
    """Each model at its own threshold for each rate: McNemar's exact test of the genuine comparisons that match.

    The subjects of the genuine comparisons are drawn again for both models alike, the thresholds held: they rest on
    millions of impostors.
    """
    rates: dict[str, Any] = {}
    genuine = first.found.genuine
    for fmr in fmrs:
        match = [e.found.similarities[genuine] >= e.found.curve.at_fmr(fmr).threshold for e in (first, other)]
        exact = mcnemar(match[0], match[1])
        count = len(match[0])
        drawn = subject_difference(
            match[0], match[1], first.scores["genuine_subject"], replicates=replicates, seed=seed
        )
        rates[rate_name(fmr)] = {
            "difference": float(match[1].mean() - match[0].mean()),
            "interval": None if drawn is None else list(drawn[0]),
            "p_value_subjects": None if drawn is None else drawn[1],
            "mcnemar": {"only_first": exact.only_first, "only_second": exact.only_second, "p_value": exact.p_value},
            "minimum_detectable_difference": minimum_detectable_difference(
                (exact.only_first + exact.only_second) / count, count
            ),
        }
    return {"tmr": rates, "thresholds": "held"}


def template_test_table(first: str, other: str, test: Mapping[str, Any]) -> Table:
    """A row for each rate."""
    rows = []
    for name, d in test["tmr"].items():
        interval = "" if d["interval"] is None else f"{100 * d['interval'][0]:+.2f} … {100 * d['interval'][1]:+.2f}"
        subjects = "" if d["p_value_subjects"] is None else p_value(d["p_value_subjects"])
        smallest = f"{100 * d['minimum_detectable_difference']:.2f}"
        exact = p_value(d["mcnemar"]["p_value"])
        rows.append((f"TMR at FMR {name}", f"{100 * d['difference']:+.2f}", interval, subjects, exact, smallest))
    note = (
        f"Points in percent, {other} minus {first}, each at its own threshold. Smallest: the difference these genuine "
        "comparisons show with 80 % power at the 5 % level."
    )
    columns = ("figure", "difference", "95 % (subjects)", "p (subjects)", "p (McNemar)", "smallest")
    return Table(f"{other} against {first}", columns, tuple(rows), note)
