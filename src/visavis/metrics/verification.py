"""Verification of pairs: the exact figures of one set of scores, from k-fold accuracy to TMR at a named FMR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import ErrorCurve, OperatingPoint, check_comparisons, rate_name
from visavis.metrics.intervals import wilson
from visavis.metrics.kfold import FoldAccuracy, SortedScores, best_threshold, cut_folds, fold_accuracy
from visavis.types import BoolArray, FloatArray, IntArray, Pairs

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer

FMRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
CHUNK = 1024  # rows of two 512-d float32 blocks: 4 MB, about what a core caches


@dataclass(frozen=True)
class VerificationMetrics:
    """What one set of comparisons shows: `similarities` (N,), NaN where a picture could not be acquired."""

    similarities: FloatArray
    genuine: BoolArray
    fold: IntArray
    curve: ErrorCurve
    folds: FoldAccuracy | None
    threshold: float
    tmr_at_fmr: dict[str, OperatingPoint | None]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over folds, weighted by their sizes."""
        if self.folds is None:
            raise ProtocolError("accuracy needs two folds: two genuine and two impostor comparisons at least")
        return self.folds.mean

    @property
    def auc(self) -> float:
        """Area under the ROC."""
        return self.curve.auc

    @property
    def eer(self) -> float:
        """Equal error rate."""
        return self.curve.eer

    @property
    def failures(self) -> int:
        """Comparisons with a picture that could not be acquired; they count as non-matches."""
        return int(np.count_nonzero(np.isnan(self.similarities)))

    def to_dict(self) -> dict[str, Any]:
        """The JSON keys every verification result has."""
        return {
            "comparisons": {
                "total": len(self.genuine),
                "genuine": len(self.curve.genuine),
                "impostor": len(self.curve.impostor),
                "failed_to_acquire": self.failures,
            },
            "accuracy": self._accuracy_dict(),
            "auc": self.auc,
            "eer": self.eer,
            "tmr_at_fmr": {name: None if p is None else p.tmr for name, p in self.tmr_at_fmr.items()},
            "tmr_at_fmr_detail": {
                name: None if p is None else self._point_dict(p) for name, p in self.tmr_at_fmr.items()
            },
            "threshold": self.threshold,
            "eer_threshold": self.curve.eer_threshold,
            "d_prime": self.curve.d_prime,
            "min_detection_cost": {"prior": 0.01, "value": self.curve.detection_cost(prior=0.01)},
        }

    def _accuracy_dict(self) -> dict[str, Any] | None:
        if self.folds is None:
            return None
        right = int(np.count_nonzero(self.folds.match == self.genuine))
        return {
            "mean": self.folds.mean,
            "std": self.folds.std,
            "standard_error": self.folds.standard_error,
            "interval": list(wilson(right, len(self.genuine))),
            "folds": self.folds.accuracy.tolist(),
            "fold_sizes": self.folds.sizes.tolist(),
            "mean_over_folds": float(self.folds.accuracy.mean()),
            "fold_thresholds": self.folds.threshold.tolist(),
        }

    def _point_dict(self, point: OperatingPoint) -> dict[str, Any]:
        return {
            "tmr": point.tmr,
            "interval": list(wilson(point.true_matches, len(self.curve.genuine))),
            "threshold": point.threshold,
            "fmr": point.fmr,
            "false_matches": point.false_matches,
        }


def verify_scores(
    similarities: Float[FloatArray, " N"],
    genuine: Bool[BoolArray, " N"],
    fold: Integer[IntArray, " N"] | None = None,
    *,
    fmrs: tuple[float, ...] = FMRS,
) -> VerificationMetrics:
    """Every exact figure of a set of comparisons.

    Args:
        similarities: (N,), higher is more alike; NaN = a picture failed to acquire, which never matches.
        genuine: (N,) whether both pictures show one subject.
        fold: (N,) fold numbers; without, or with a single fold, ten contiguous ones are cut.
        fmrs: where to read the true match rate; one that the impostors cannot support (less than one false match
            allowed) becomes None.

    Raises:
        ProtocolError: shapes differ, or genuine or impostor comparisons are missing.
    """
    similarities, genuine = check_comparisons(similarities, genuine)
    fold = cut_folds(genuine) if fold is None or (len(fold) and (fold == fold[0]).all()) else fold
    sorted_scores = SortedScores.of(np.where(np.isnan(similarities), -np.inf, similarities), genuine)
    curve = ErrorCurve(
        sorted_scores.ascending(genuine=True), sorted_scores.ascending(genuine=False)
    )  # sorted once for all
    several = bool((fold != fold[0]).any())
    return VerificationMetrics(
        similarities=similarities,
        genuine=genuine,
        fold=fold,
        curve=curve,
        folds=fold_accuracy(sorted_scores, fold) if several else None,
        threshold=best_threshold(sorted_scores),
        tmr_at_fmr={rate_name(f): curve.at_fmr(f) if curve.supports(f) else None for f in fmrs},
    )


def verify_pairs(
    embeddings: Float[FloatArray, "M D"], pairs: Pairs, *, fmrs: tuple[float, ...] = FMRS
) -> VerificationMetrics:
    """Verify from embeddings (images, D) with unit rows, in the order of `pairs.images`; a row of NaN was not acquired.

    Cheap enough to be called within training: 6,000 pairs of 512-d take a few milliseconds.
    """
    if len(embeddings) != len(pairs.images):
        raise ProtocolError(f"expected one embedding for each of {len(pairs.images)} images, got {len(embeddings)}")
    return verify_scores(
        pair_similarities(embeddings, pairs.reference, pairs.probe), pairs.genuine, pairs.fold, fmrs=fmrs
    )


def pair_similarities(
    embeddings: Float[FloatArray, "M D"], reference: Integer[IntArray, " N"], probe: Integer[IntArray, " N"]
) -> Float[npt.NDArray[np.floating], " N"]:
    """Cosine of unit rows, similarity[i] = ⟨x[reference[i]], x[probe[i]]⟩, in chunks that stay in cache."""
    result = np.empty(len(reference), np.result_type(embeddings, np.float32))
    for start in range(0, len(reference), CHUNK):
        part = slice(start, start + CHUNK)
        np.vecdot(embeddings[reference[part]], embeddings[probe[part]], out=result[part])
    return result
