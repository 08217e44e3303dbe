"""Evaluations compared: read from their JSON and scores, tested in pairs, shown side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from visavis.errors import ProtocolError
from visavis.evaluate.compare.hardest import hardest_pairs
from visavis.evaluate.compare.saved import SAME, SavedEvaluation
from visavis.evaluate.compare.templates import template_test, template_test_table
from visavis.evaluate.embedding import Images
from visavis.evaluate.environment import environment
from visavis.evaluate.report.figures import Plot
from visavis.evaluate.report.report import Report
from visavis.evaluate.report.tables import Table, p_value, percent, percent_range
from visavis.metrics.error_rates import rate_name
from visavis.metrics.paired_tests import holm, mcnemar, minimum_detectable_difference, paired_bootstrap
from visavis.metrics.verification import FMRS


def compare(
    evaluations: Sequence[SavedEvaluation],
    *,
    fmrs: Sequence[float] = FMRS,
    replicates: int = 1000,
    seed: int = 0,
    images: Images | None = None,
) -> Report:
    """Test every evaluation against the first, on the same comparisons.

    Args:
        evaluations: the first is the one that the others are tested against.
        fmrs: where to compare the true match rates.
        replicates: draws of subjects.
        seed: of the draws.
        images: name -> crop: the comparisons hardest for all of them, and those they differ on, as pictures.

    Raises:
        ProtocolError: less than two, or they did not judge the same comparisons.
    """
    if len(evaluations) < 2:
        raise ProtocolError(f"a comparison needs at least two evaluations, got {len(evaluations)}")
    evaluations = _distinct_labels(evaluations)
    first = evaluations[0]
    for other in evaluations[1:]:
        check_same(first, other)
    fmrs = [f for f in fmrs if first.found.curve.supports(f)]
    if first.of_templates:
        tests = {e.label: template_test(first, e, fmrs, replicates=replicates, seed=seed) for e in evaluations[1:]}
        tested = [template_test_table(first.label, label, t) for label, t in tests.items()]
    else:
        tests = {other.label: _test(first, other, fmrs, replicates, seed) for other in evaluations[1:]}
        for test, p in zip(tests.values(), holm([t["mcnemar"]["p_value"] for t in tests.values()]), strict=True):
            test["mcnemar"]["p_holm"] = p
        tested = [_test_table(first.label, label, t, len(tests)) for label, t in tests.items()]
    results = {
        "models": {e.label: e.figures() for e in evaluations},
        "reference": first.label,
        "tests": tests,
        "comparisons": first.found.to_dict()["comparisons"],
    }
    tables = (
        _side_by_side(evaluations, fmrs),
        *_group_tables(evaluations),
        *tested,
    )
    return Report(
        compares=True,
        protocol=f"comparison on {first.body['protocol']}",
        model={"name": " · ".join(e.label for e in evaluations)},
        results=results,
        tables=tables,
        plots=_overlays(evaluations),
        warnings=tuple(f"{e.label}: {warning}" for e in evaluations for warning in e.warnings),
        images=() if images is None else hardest_pairs(evaluations, images),
        context={"settings": {"bootstrap": replicates, "seed": seed}, "environment": environment()},
    )


def _distinct_labels(evaluations: Sequence[SavedEvaluation]) -> list[SavedEvaluation]:
    """Evaluations of one model are told apart by their files' names, else by a number."""
    names = Counter(e.label for e in evaluations)
    named = Counter((e.label, e.file) for e in evaluations)
    seen: Counter[str] = Counter()
    result = []
    for e in evaluations:
        seen[e.label] += 1
        if names[e.label] == 1:
            result.append(e)
        elif e.file and all(count == 1 for (label, _), count in named.items() if label == e.label):
            result.append(replace(e, label=f"{e.label} ({e.file})"))
        else:
            result.append(e if seen[e.label] == 1 else replace(e, label=f"{e.label} ({seen[e.label]})"))
    return result


def check_same(first: SavedEvaluation, other: SavedEvaluation) -> None:
    """Refuse two evaluations of different comparisons."""
    digests = [e.body.get("data", {}).get("comparisons_digest") for e in (first, other)]
    keys = [k for k in (*SAME, "genuine_subject") if k in first.scores or k in other.scores]
    same = all(k in e.scores for k in keys for e in (first, other)) and all(
        np.array_equal(first.scores[k], other.scores[k]) for k in keys
    )
    if not same or digests[0] != digests[1]:
        said = [f"{e.label} {len(e.found.genuine):,}" for e in (first, other)]
        raise ProtocolError(
            f"a paired test needs the same comparisons in the same order, these differ ({' and '.join(said)}); "
            "evaluate both with the same --data and --pairs"
        )


def _test(
    first: SavedEvaluation, other: SavedEvaluation, fmrs: Sequence[float], replicates: int, seed: int
) -> dict[str, Any]:
    a, b = first.decided, other.decided
    exact = mcnemar(a.right, b.right)
    pairs = len(a.right)
    discordant = (exact.only_first + exact.only_second) / pairs
    test: dict[str, Any] = {
        "accuracy_difference": float(np.mean(b.right)) - float(np.mean(a.right)),
        "mcnemar": {"only_first": exact.only_first, "only_second": exact.only_second, "p_value": exact.p_value},
        "minimum_detectable_difference": minimum_detectable_difference(discordant, pairs),
        "subject_bootstrap": None,
    }
    subjects = tuple(first.scores.get(k) for k in ("reference_subject", "probe_subject"))
    if (
        replicates
        and subjects[0] is not None
        and subjects[1] is not None
        and min(subjects[0].min(), subjects[1].min()) >= 0
    ):
        drawn = paired_bootstrap(
            (a, b), first.found.genuine, (subjects[0], subjects[1]), fmrs=fmrs, replicates=replicates, seed=seed
        )
        test["subject_bootstrap"] = {
            name: {"difference": d.value, "interval": list(d.interval), "p_value": d.p_value}
            for name, d in drawn.items()
        }
    return test


def _side_by_side(evaluations: Sequence[SavedEvaluation], fmrs: Sequence[float]) -> Table:
    columns = ("model", "accuracy", "95 % (pairs)", "EER", "AUC", *(f"TMR@{rate_name(f)}" for f in fmrs))
    rows = []
    for e in evaluations:
        figures = e.figures()
        accuracy = figures["accuracy"]
        shown = ("–", "") if accuracy is None else (_spread(accuracy), percent_range(accuracy["interval"]))
        tmr = [percent(figures["tmr_at_fmr"].get(rate_name(f))) for f in fmrs]
        rows.append(
            (
                e.label,
                *shown,
                percent(figures["eer"]),
                f"{figures['auc']:.5f}",
                *tmr,
            )
        )
    return Table("Side by side", columns, tuple(rows))


def _test_table(first: str, other: str, test: Mapping[str, Any], models: int) -> Table:
    exact = test["mcnemar"]
    rows = [
        (
            "accuracy (McNemar, exact)",
            f"{100 * test['accuracy_difference']:+.2f}",
            "",
            p_value(exact["p_value"]),
        )
    ]
    for name, d in (test["subject_bootstrap"] or {}).items():
        label = "accuracy (subjects drawn)" if name == "accuracy" else f"TMR at FMR {name} (subjects drawn)"
        interval = f"{100 * d['interval'][0]:+.2f} … {100 * d['interval'][1]:+.2f}"
        rows.append((label, f"{100 * d['difference']:+.2f}", interval, p_value(d["p_value"])))
    note = (
        f"Points in percent, {other} minus {first}. {exact['only_second']} comparisons are right only for {other}, "
        f"{exact['only_first']} only for {first}. Smallest difference of accuracy this set shows with 80 % power at "
        f"the 5 % level: {100 * test['minimum_detectable_difference']:.2f} points."
    )
    if models > 1:
        note += f" McNemar's p with Holm's correction for {models} such tests: {p_value(exact['p_holm'])}."
    return Table(f"{other} against {first}", ("figure", "difference", "95 %", "p"), tuple(rows), note)


def _group_tables(evaluations: Sequence[SavedEvaluation]) -> list[Table]:
    """For each grouping that all have: the worst group's rates and the differentials, a model a row."""
    bodies = [(e.label, e.body.get("groups") or {}) for e in evaluations]
    shared = [c for c in bodies[0][1] if all(c in groups for _, groups in bodies)]
    tables = []
    for column in shared:
        rows = []
        for label, groups in bodies:
            body = groups[column]
            worst = body["groups"][0]
            miss = max(body["groups"], key=lambda g: g["fnmr"] or 0.0)
            cells = [label, f"{worst['group']} {percent(worst['fmr'], 3)}", f"{miss['group']} {percent(miss['fnmr'])}"]
            for kind in ("fmr", "fnmr"):
                ratio = body["differentials"][kind]["max_over_geometric_mean"]
                cells.append("–" if ratio is None else f"{ratio:.2f}")
            rows.append(tuple(cells))
        columns = ("model", "worst FMR", "worst FNMR", "FMR / geometric mean", "FNMR / geometric mean")
        tables.append(Table(f"By {column}, each model at its own common threshold", columns, tuple(rows)))
    return tables


def _spread(accuracy: Mapping[str, Any]) -> str:
    return f"{100 * accuracy['mean']:.2f} ± {100 * accuracy['std']:.2f} %"


def _overlays(evaluations: Sequence[SavedEvaluation]) -> tuple[Plot, ...]:
    """ROC and DET of all models in one figure each, and a histogram for each model."""
    from visavis.evaluate.protocols.pairs import histogram, verification_plots

    drawn = [verification_plots(e.found.curve, e.found.threshold, label=e.label) for e in evaluations]
    merged = [replace(drawn[0][k], series=tuple(s for plots in drawn for s in plots[k].series)) for k in range(2)]
    singles = [
        replace(histogram(e.found.curve, e.found.threshold), name=f"histogram {i}", title=f"Scores: {e.label}")
        for i, e in enumerate(evaluations)
    ]
    return (*merged, *singles)
