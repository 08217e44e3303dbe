"""Thresholds at a named false match rate, on one's own impostors, with what they rest on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import allowed_false_matches, between, error_curve, rate_name
from visavis.metrics.intervals import percentile_interval, subject_weights, wilson
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True)
class CalibratedThreshold:
    """A threshold for a false match rate, measured on `impostors` impostor comparisons of a set with this digest.

    `fmr` is what it gave there, with Wilson's interval; `threshold_interval` is where drawing the set again puts it.
    """

    target: float
    threshold: float
    fmr: float
    fmr_interval: tuple[float, float]
    tmr: float
    tmr_interval: tuple[float, float]
    threshold_interval: tuple[float, float]
    genuine: int
    impostors: int
    digest: str

    def to_dict(self) -> dict[str, Any]:
        """For the model card: under its rate's name."""
        return {
            "threshold": self.threshold,
            "threshold_interval": list(self.threshold_interval),
            "fmr": self.fmr,
            "fmr_interval": list(self.fmr_interval),
            "tmr": self.tmr,
            "tmr_interval": list(self.tmr_interval),
            "genuine": self.genuine,
            "impostor": self.impostors,
            "set_digest": self.digest,
        }


def calibrate_threshold(
    similarities: Float[FloatArray, " N"],
    genuine: Bool[BoolArray, " N"],
    fmr: float,
    *,
    digest: str = "",
    subjects: tuple[Integer[IntArray, " N"], Integer[IntArray, " N"]] | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> CalibratedThreshold:
    """The threshold at which at most `fmr` of these impostors match.

    Args:
        similarities: (N,), NaN where not acquired.
        genuine: (N,).
        fmr: in (0, 1).
        digest: of the comparisons and pictures, so that the card says what the threshold rests on.
        subjects: subject numbers (N,) of reference and probe: the threshold's interval is then over subjects.
        replicates: draws for the interval.
        seed: of the draws.

    Raises:
        ProtocolError: so few impostors that the rate would allow less than one false match.
    """
    curve = error_curve(similarities, genuine)
    require_support(fmr, len(curve.impostor))
    point = curve.at_fmr(fmr)
    return CalibratedThreshold(
        target=fmr,
        threshold=point.threshold,
        fmr=point.fmr,
        fmr_interval=wilson(point.false_matches, len(curve.impostor)),
        tmr=point.tmr,
        tmr_interval=wilson(point.true_matches, len(curve.genuine)),
        threshold_interval=_threshold_interval(similarities, genuine, fmr, subjects, replicates, seed),
        genuine=len(curve.genuine),
        impostors=len(curve.impostor),
        digest=digest,
    )


def require_support(fmr: float, impostors: int) -> None:
    """Refuse a rate at which so many impostors would be allowed less than one false match."""
    if not 0 < fmr < 1:
        raise ProtocolError(f"a false match rate to calibrate for lies between 0 and 1, got {fmr}")
    if allowed_false_matches(fmr, impostors) < 1:
        raise ProtocolError(
            f"FMR {rate_name(fmr)} needs at least {math.ceil(1 / fmr):,} impostor comparisons, got {impostors:,}; "
            "calibrate at a higher rate or on more pictures"
        )


def _threshold_interval(
    similarities: FloatArray,
    genuine: BoolArray,
    fmr: float,
    subjects: tuple[IntArray, IntArray] | None,
    replicates: int,
    seed: int,
) -> tuple[float, float]:
    """Where the threshold falls when subjects (or, without them, comparisons) are drawn again."""
    impostor = ~genuine
    scores = np.where(np.isnan(similarities[impostor]), -np.inf, similarities[impostor])
    order = np.argsort(-scores)
    scores = scores[order]
    rng = np.random.default_rng(seed)
    found = np.full(replicates, np.nan)
    sides = None if subjects is None or min(s.min() for s in subjects) < 0 else [s[impostor][order] for s in subjects]
    drawn = None
    if sides is not None:
        drawn = subject_weights(int(max(s.max() for s in sides)) + 1, replicates=replicates, seed=seed)
    for row in range(replicates):
        if drawn is None or sides is None:
            weights = np.bincount(rng.integers(0, len(scores), len(scores)), minlength=len(scores))
        else:
            weights = drawn[row][sides[0]] * np.where(sides[0] == sides[1], 1, drawn[row][sides[1]])
        matched = np.cumsum(weights)
        last = int(matched.searchsorted(float(fmr * matched[-1] * (1 + 1e-12)), "right"))
        if matched[-1] > 0 and 0 < last < len(scores) and np.isfinite(scores[last]):
            found[row] = between(float(scores[last]), float(scores[last - 1]))
    return percentile_interval(found)
