"""What a fine-tuning did: the model it started from and the one it ended with on the same pairs, with a paired test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from visavis.data.validate.trained_on import TrainedOn
from visavis.data.validate.training_overlap import find_overlap
from visavis.errors import RecipeError
from visavis.evaluate.protocols.pairs import subjects_of
from visavis.evaluate.report.tables import Table, number, percent
from visavis.metrics.intervals import comparison_weights, percentile_interval, subject_weights
from visavis.metrics.paired_tests import mcnemar
from visavis.metrics.verification import VerificationMetrics
from visavis.train.dataset import Advance
from visavis.train.recipe import Recipe
from visavis.train.validation import ValidationSet, open_validation_set
from visavis.types import Embedder, Pairs
from visavis.vision.preprocessing import PreprocessSpec

OWN, OLD = "own pairs", "old pairs (forgetting)"


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pairs.

    `gained` comparisons only the second decides rightly, `lost` only the first; `p_value` is that of McNemar's exact
    test, `interval` the 95 % interval of the difference in accuracy when subjects (else pairs) are drawn again,
    `warning` what makes the figures mean less than they seem to.
    """

    name: str
    before: VerificationMetrics
    after: VerificationMetrics
    gained: int
    lost: int
    p_value: float
    interval: tuple[float, float]
    warning: str = ""

    @property
    def difference(self) -> float:
        """Accuracy after minus accuracy before."""
        return self.after.accuracy - self.before.accuracy

    def verdict(self) -> str:
        """One sentence."""
        low, high = self.interval
        moved = f"{100 * self.difference:+.2f} points of accuracy, 95 % {100 * low:+.2f} to {100 * high:+.2f}"
        if self.p_value >= 0.05:
            said = "no change shown"
        else:
            said = "better" if self.gained > self.lost else "worse"
        return f"{self.name}: {moved}; {self.gained} gained, {self.lost} lost, p = {self.p_value:.3g}: {said}"

    def to_dict(self) -> dict[str, Any]:
        """The figures of both models and of the test."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "accuracy_difference": self.difference,
            "accuracy_difference_interval": list(self.interval),
            "gained": self.gained,
            "lost": self.lost,
            "p_value": self.p_value,
            **({"warning": self.warning} if self.warning else {}),
        }


def compare(
    name: str,
    before: VerificationMetrics,
    after: VerificationMetrics,
    pairs: Pairs,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare two verifications of the same pairs, each decided at its own folds' thresholds.

    Raises:
        RecipeError: too few pairs for folds.
    """
    if before.folds is None or after.folds is None:
        raise RecipeError(f"{name}: a comparison needs pairs of both kinds in two folds at least")
    right = [v.folds.match == v.genuine for v in (before, after) if v.folds is not None]
    paired = mcnemar(*right)
    moved = right[1].astype(np.float64) - right[0]
    interval = _interval(moved, pairs, replicates, seed)
    return Comparison(name, before, after, paired.only_second, paired.only_first, paired.p_value, interval)


def _interval(moved: np.ndarray, pairs: Pairs, replicates: int, seed: int) -> tuple[float, float]:
    """Percentiles of the mean of `moved` (N,) when subjects are drawn again, or pairs where subjects are not known."""
    subjects = subjects_of(pairs)
    reference, probe = subjects[pairs.reference], subjects[pairs.probe]
    if min(reference.min(), probe.min()) < 0:
        reference = probe = np.arange(len(moved))
    means = []
    drawn = subject_weights(int(max(reference.max(), probe.max())) + 1, replicates=replicates, seed=seed)
    step = max(1, 2_000_000 // len(moved))
    for start in range(0, replicates, step):
        weights = comparison_weights(drawn[start : start + step], reference, probe)
        total = weights.sum(1)
        means.append((weights @ moved)[total > 0] / total[total > 0])
    return percentile_interval(np.concatenate(means))


def open_old_validation_set(
    recipe: Recipe, spec: PreprocessSpec, *, advance: Advance | None = None
) -> ValidationSet | None:
    """The pairs of the forgetting check (`evaluate.retention_pairs`, `retention_source`); None where none are named."""
    wanted = recipe.evaluate
    if not (wanted.retention_source or wanted.retention_pairs):
        return None
    if not wanted.retention_source:
        raise RecipeError(
            "evaluate.retention_pairs needs the folder of their pictures: --evaluate.retention_source SRC"
        )
    return open_validation_set(
        replace(recipe, evaluate=replace(wanted, source=wanted.retention_source, pairs=wanted.retention_pairs)),
        spec,
        advance=advance,
    )


def before_and_after(
    before: Embedder,
    after: Embedder,
    validation_sets: Sequence[tuple[str, ValidationSet]],
    *,
    trained_on: TrainedOn | None = None,
) -> list[Comparison]:
    """Both models on each set of pairs, with a warning where `after` was trained on what they show."""
    found = []
    for name, validation_set in validation_sets:
        was, now = (validation_set(model) for model in (before, after))
        warning = find_overlap(validation_set.images, trained_on).sentence() if trained_on is not None else ""
        found.append(replace(compare(name, was, now, validation_set.pairs), warning=warning))
    return found


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Before and after, side by side; the note holds the verdicts."""
    rows = []
    for c in comparisons:
        for label, was, now, show in (
            ("accuracy", c.before.accuracy, c.after.accuracy, percent),
            ("equal error rate", c.before.eer, c.after.eer, percent),
            ("area under the ROC", c.before.auc, c.after.auc, lambda v: number(v, 5)),
        ):
            rows.append((f"{c.name}: {label}", show(was), show(now)))
        for fmr, point in c.before.tmr_at_fmr.items():
            later = c.after.tmr_at_fmr[fmr]
            if point is not None and later is not None:
                rows.append((f"{c.name}: TMR at FMR {fmr}", percent(point.tmr), percent(later.tmr)))
    note = "\n".join(c.verdict() + (f" ({c.warning})" if c.warning else "") for c in comparisons)
    return Table("Before and after fine-tuning", ("figure", "before", "after"), tuple(rows), note)
