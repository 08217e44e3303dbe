"""The threshold a decision is taken at: read from the model's card, never guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from visavis.errors import DataError, ModelFormatError
from visavis.models.card import ModelCard

DEFAULT_FMR = 1e-3
HOW_TO = "calibrate it with: visavis calibrate MODEL PHOTOS (a folder per person)"


@dataclass(frozen=True)
class DecisionThreshold:
    """A similarity threshold and what is known about it.

    `fmr` is the false match rate it was calibrated at, None for a threshold somebody gave; `fmr_interval` is where the
    true rate lies, as far as a calibration on so many comparisons of so many people can tell. `slope` and `intercept`
    map a similarity to the probability that two pictures show one person, when genuine and impostor are equally
    likely: p = 1 / (1 + exp(−(slope·similarity + intercept))).
    `measured_on` says in words on what it was measured.
    """

    threshold: float
    fmr: float | None = None
    interval: tuple[float, float] | None = None
    comparisons: int | None = None
    slope: float | None = None
    intercept: float | None = None
    fmr_interval: tuple[float, float] | None = None
    measured_on: str | None = None

    def probability(self, similarity: float) -> float | None:
        """The calibrated probability of a match in [0, 1], None when the card holds no calibration."""
        if self.slope is None or self.intercept is None:
            return None
        z = min(700.0, max(-700.0, self.slope * similarity + self.intercept))
        return 1 / (1 + math.exp(-z))


def operating_point(
    card: ModelCard | None, *, fmr: float | None = None, threshold: float | None = None
) -> DecisionThreshold | None:
    """The point to decide at: `threshold` when given, else the card's at `fmr`, None when the card has none at all.

    Without `fmr` it is `DEFAULT_FMR`, or the strictest rate calibrated if that is not among them; it says which.

    Raises:
        DataError: `fmr` or `threshold` out of range, or the card is calibrated but not at `fmr`.
        ModelFormatError: the card's entry is unreadable or belongs to other weights.
    """
    if threshold is not None:
        if not -1 <= threshold <= 1:
            raise DataError(f"a similarity threshold lies in [-1, 1], got {threshold}")
        near = _calibrated(card)
        slope, intercept = next(((p.slope, p.intercept) for p in near.values() if p.slope is not None), (None, None))
        return DecisionThreshold(float(threshold), slope=slope, intercept=intercept)
    if fmr is not None and not 0 < fmr < 1:
        raise DataError(f"a false match rate lies between 0 and 1, got {fmr}")
    points = _calibrated(card)
    if not points:
        return None
    wanted = DEFAULT_FMR if fmr is None else fmr
    for known, point in points.items():
        if math.isclose(known, wanted, rel_tol=1e-6):
            return point
    if fmr is None:
        return points[min(points)]
    there = ", ".join(f"{known:g}" for known in sorted(points))
    raise DataError(
        f"the model is calibrated at the false match rates {there}, not at {fmr:g}; choose one of these, or {HOW_TO}"
    )


def _calibrated(card: ModelCard | None) -> dict[float, DecisionThreshold]:
    if card is None:
        return {}
    points = {_rate(key): _point(card, key, entry) for key, entry in card.thresholds.items() if _is_rate(key)}
    return {fmr: replace(point, fmr_interval=_fmr_interval(point, points)) for fmr, point in points.items()}


def _fmr_interval(point: DecisionThreshold, points: Mapping[float, DecisionThreshold]) -> tuple[float, float] | None:
    """The counting error of the rate, widened by what the threshold's own interval means in rates.

    The threshold's interval comes from drawing people again, which counting comparisons does not know of. Between two
    calibrated thresholds log FMR is taken as linear: if the rate belonged to T′ instead of T, T would have
    FMR·exp(b·(T − T′)), b = d log FMR / dT < 0.
    """
    assert point.fmr is not None
    bounds = [] if point.fmr_interval is None else list(point.fmr_interval)
    slopes = [
        math.log(fmr / point.fmr) / (other.threshold - point.threshold)
        for fmr, other in points.items()
        if fmr != point.fmr and other.threshold != point.threshold
    ]
    if point.interval is not None and slopes and max(slopes) < 0:
        bounds += [point.fmr * math.exp(min(slopes) * (point.threshold - end)) for end in point.interval]
    return (min(bounds), min(1.0, max(bounds))) if bounds else None


def _is_rate(key: str) -> bool:
    try:
        return 0 < float(key) < 1
    except ValueError:
        return False


def _rate(key: str) -> float:
    return float(key)


def _point(card: ModelCard, key: str, entry: Any) -> DecisionThreshold:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("threshold"), int | float):
        raise ModelFormatError(f"{card.name}: thresholds[{key!r}] of the model card holds no threshold; {HOW_TO}")
    made_for = entry.get("digest") or card.weights_digest
    if card.weights_digest and made_for != card.weights_digest:
        raise ModelFormatError(f"{card.name}: the threshold at FMR {key} was calibrated for other weights; {HOW_TO}")
    fit = entry.get("calibration", entry)
    return DecisionThreshold(
        threshold=float(entry["threshold"]),
        fmr=_rate(key),
        interval=_pair(entry, "interval"),
        fmr_interval=_pair(entry, "fmr_interval"),
        comparisons=entry.get("comparisons"),
        slope=_number(fit, "slope"),
        intercept=_number(fit, "intercept"),
        measured_on=entry.get("measured_on") if isinstance(entry.get("measured_on"), str) else None,
    )


def _pair(values: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    pair = values.get(key)
    return None if pair is None else (float(pair[0]), float(pair[1]))


def _number(values: Any, key: str) -> float | None:
    value = values.get(key) if isinstance(values, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
