"""A report with calibrated thresholds and probabilities, and what of it belongs into the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visavis.errors import ProtocolError
from visavis.evaluate.protocols.base import EvaluationProtocol
from visavis.evaluate.report.metric_tables import calibration_figures, threshold_table
from visavis.evaluate.report.report import Report
from visavis.metrics.calibration import calibrate_threshold, require_support
from visavis.metrics.error_rates import rate_name
from visavis.metrics.kfold import cut_folds
from visavis.metrics.score_calibration import cross_calibrated, fit_logistic
from visavis.models.card import read_card, write_card

DEFAULT_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
_ISOTONIC_MAX = 1_000_000  # comparisons beyond which the isotonic map is not fitted by folds
_NO_COMPARISONS = (
    "thresholds are calibrated on genuine and impostor comparisons; protocol '{}' has none: use --protocol pairs"
)


def check_rates(protocol: EvaluationProtocol, rates: Sequence[float]) -> None:
    """Refuse what `with_calibration` would refuse, before the pictures are embedded.

    Raises:
        ProtocolError: the protocol has no genuine and impostor comparisons, or a rate is not supported by them.
    """
    pairs = getattr(protocol, "pairs", None)
    genuine = getattr(protocol if pairs is None else pairs, "genuine", None)
    if genuine is None:
        raise ProtocolError(_NO_COMPARISONS.format(protocol.name))
    impostors = int(np.count_nonzero(~np.asarray(genuine, bool)))
    for rate in rates:
        require_support(rate, impostors)


def with_calibration(report: Report, rates: Sequence[float] = (), *, seed: int = 0) -> tuple[Report, dict[str, Any]]:
    """Calibrate on a report's own comparisons.

    Args:
        report: of a protocol whose scores are similarities of genuine and impostor comparisons.
        rates: false match rates; without, all of `DEFAULT_RATES` that the impostors support.
        seed: of the draws for intervals.

    Returns:
        The report with two tables and the reliability diagram, and for the card, by rate's name: the threshold, its
        interval, the comparisons it rests on, the set's digest and the logistic map at equal odds.

    Raises:
        ProtocolError: the protocol has no such scores, or a rate asked for is not supported by the impostors.
    """
    scores = report.scores
    if "similarity" not in scores or "genuine" not in scores:
        raise ProtocolError(_NO_COMPARISONS.format(report.protocol))
    similarity, genuine = np.asarray(scores["similarity"]), np.asarray(scores["genuine"], bool)
    impostors = int(np.count_nonzero(~genuine))
    wanted = tuple(rates) or tuple(r for r in DEFAULT_RATES if r * impostors >= 1)
    subjects = None
    if "reference_subject" in scores:
        subjects = (scores["reference_subject"], scores["probe_subject"])
    digest = str(report.context.get("data", {}).get("comparisons_digest", ""))
    found = [
        calibrate_threshold(similarity, genuine, rate, digest=digest, subjects=subjects, seed=seed) for rate in wanted
    ]
    if not found:
        raise ProtocolError(f"{impostors} impostor comparisons support no threshold; at least 10 are needed")
    tables, plots = [threshold_table(found)], []
    context: dict[str, Any] = {"calibration": {"thresholds": {rate_name(c.target): c.to_dict() for c in found}}}
    if len(genuine) <= _ISOTONIC_MAX:
        fold = scores.get("fold")
        fold = cut_folds(genuine) if fold is None or len(np.unique(fold)) < 2 else fold
        reliable, maps = cross_calibrated(similarity, genuine, fold)
        table, plot = calibration_figures(reliable)
        tables.append(table)
        plots.append(plot)
        context["calibration"]["probability"] = {
            name: {**maps[name], "expected_calibration_error": r.expected_calibration_error, "brier": r.brier}
            for name, r in reliable.items()
        }
    logistic = fit_logistic(similarity, genuine, prior=0.5)
    for_card = {
        rate_name(c.target): {
            **c.to_dict(),
            "interval": list(c.threshold_interval),
            "comparisons": len(genuine),
            "calibration": {"kind": "logistic", "slope": logistic.slope, "intercept": logistic.offset, "prior": 0.5},
            "protocol": report.protocol,
            **({"warnings": list(report.warnings)} if report.warnings else {}),
        }
        for c in found
    }
    return report.with_additions(tables=tuple(tables), plots=tuple(plots), context=context), for_card


def keep_thresholds(folder: Path, thresholds: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write calibrated thresholds into a model folder's card, bound to its weights.

    Args:
        folder: the model folder.
        thresholds: by rate's name, as `with_calibration` gives them.
        replace: those of other rates go, which another set gave; otherwise they stay.
    """
    card = read_card(folder)
    entries = {rate: {**entry, "digest": card.weights_digest} for rate, entry in thresholds.items()}
    write_card(folder, card.with_changes(thresholds=entries if replace else {**card.thresholds, **entries}))


def supported_rates(impostors: int, *, false_matches: int = 10) -> tuple[float, ...]:
    """Those of `DEFAULT_RATES` at which so many impostor comparisons allow `false_matches`, else the loosest alone.

    A threshold that rests on fewer is one person's luck.

    Raises:
        ProtocolError: not even the loosest allows one.
    """
    well = tuple(rate for rate in DEFAULT_RATES if rate * impostors * (1 + 1e-12) >= false_matches)
    if not well:
        require_support(DEFAULT_RATES[0], impostors)
    return well or DEFAULT_RATES[:1]
