"""Score to probability: the logistic and the isotonic map, and whether what they predict comes true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import Float64, error_curve
from visavis.types import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Integer


@dataclass(frozen=True)
class Logistic:
    """P(genuine | s) = 1 / (1 + exp(−(slope·s + offset))), Platt's map."""

    slope: float
    offset: float

    def __call__(self, similarities: Float[FloatArray, "*S"]) -> Float[Float64, "*S"]:
        """Probabilities (N,)."""
        return _sigmoid(self.slope * np.asarray(similarities, np.float64) + self.offset)


@dataclass(frozen=True)
class Isotonic:
    """A rising step function: `values` (K,) from each of `edges` (K,) on; below the first, its value."""

    edges: Float64
    values: Float64

    def __call__(self, similarities: Float[FloatArray, "*S"]) -> Float[Float64, "*S"]:
        """Probabilities (N,)."""
        place = np.searchsorted(self.edges, np.asarray(similarities, np.float64), "right") - 1
        return self.values[np.clip(place, 0, None)]


def fit_logistic(
    similarities: Float[FloatArray, " N"], genuine: Bool[BoolArray, " N"], *, prior: float | None = None
) -> Logistic:
    """Fit P(genuine | s) by maximum likelihood (Newton's method), with Platt's targets against perfect separation.

        t₊ = (n₊ + 1)/(n₊ + 2), t₋ = 1/(n₋ + 2)                    (Platt 1999, section 2.2)

    Args:
        similarities: (N,); those that are not finite are left out.
        genuine: (N,).
        prior: the share of genuine comparisons in use; that of the set when None. Shifts the offset by the log odds.

    Raises:
        ProtocolError: genuine or impostor comparisons are missing.
    """
    s, g = _acquired(similarities, genuine)
    positives, negatives = int(np.count_nonzero(g)), int(np.count_nonzero(~g))
    target = np.where(g, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    center, scale = float(s.mean()), float(s.std()) or 1.0
    z = (s - center) / scale
    slope, offset = 0.0, math.log((positives + 1) / (negatives + 1))
    loss = _logistic_loss(slope * z + offset, target)
    for _ in range(200):
        p = _sigmoid(slope * z + offset)
        residual, weight = p - target, p * (1 - p)
        gradient = np.array([residual @ z, residual.sum()])
        hessian = np.array([[weight @ (z * z), weight @ z], [weight @ z, weight.sum()]]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        for halvings in range(40):  # until it gains
            size = 0.5**halvings
            new = slope - size * step[0], offset - size * step[1]
            new_loss = _logistic_loss(new[0] * z + new[1], target)
            if new_loss <= loss:
                gained, loss = loss - new_loss, new_loss
                slope, offset = new
                break
        else:
            break
        if gained <= 1e-14 * max(loss, 1.0):
            break
    shift = 0.0 if prior is None else _logit(prior) - _logit(positives / len(g))
    return Logistic(float(slope / scale), float(offset - slope * center / scale + shift))


def fit_isotonic(similarities: Float[FloatArray, " N"], genuine: Bool[BoolArray, " N"]) -> Isotonic:
    """The rising function of the score that is nearest to the truth in squares: pool adjacent violators.

    Ayer et al., Ann. Math. Stat. 26, 1955. Equal scores share one value.
    """
    s, g = _acquired(similarities, genuine)
    edges, place = np.unique(s, return_inverse=True)
    weight = np.bincount(place).astype(np.float64)
    mean = np.bincount(place, weights=g) / weight
    starts: list[int] = []
    means: list[float] = []
    weights: list[float] = []
    for i in range(len(edges)):
        starts.append(i)
        means.append(float(mean[i]))
        weights.append(float(weight[i]))
        while len(means) > 1 and means[-2] >= means[-1]:
            joined = weights[-2] + weights[-1]
            means[-2] = (means[-2] * weights[-2] + means[-1] * weights[-1]) / joined
            weights[-2] = joined
            for stack in (starts, means, weights):
                stack.pop()
    return Isotonic(edges[starts], np.array(means))


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed: mean probability and share of genuine by bin; ECE, Brier score, log loss in bits."""

    predicted: Float64
    observed: Float64
    count: IntArray
    expected_calibration_error: float
    brier: float
    log_loss: float


def reliability(probabilities: Float[Float64, " N"], genuine: Bool[BoolArray, " N"], *, bins: int = 15) -> Reliability:
    """Compare probabilities (N,) with what happened, in bins of equal width; empty ones are left out.

    ECE = Σ_b n_b/N·|observed_b − predicted_b| (Naeini et al. 2015, eq. 3).
    """
    place = np.clip((probabilities * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    predicted = np.bincount(place, weights=probabilities, minlength=bins)[used] / count[used]
    observed = np.bincount(place, weights=genuine, minlength=bins)[used] / count[used]
    clipped = np.clip(probabilities, 1e-15, 1 - 1e-15)
    loss = -np.mean(np.where(genuine, np.log2(clipped), np.log2(1 - clipped)))
    error = float(np.sum(count[used] * np.abs(observed - predicted)) / len(probabilities))
    brier = float(np.mean((probabilities - genuine) ** 2))
    return Reliability(predicted, observed, count[used], error, brier, float(loss))


def cross_calibrated(
    similarities: Float[FloatArray, " N"], genuine: Bool[BoolArray, " N"], fold: Integer[IntArray, " N"]
) -> tuple[dict[str, Reliability], dict[str, Any]]:
    """Reliability of both maps, each fold judged by maps fitted on the others; and the maps of the whole set."""
    good = np.isfinite(similarities)
    s, g, f = np.asarray(similarities, np.float64)[good], genuine[good], fold[good]
    predicted = {"logistic": np.empty(len(s)), "isotonic": np.empty(len(s))}
    for name in np.unique(f):
        here = f == name
        if not 0 < np.count_nonzero(g[~here]) < np.count_nonzero(~here):
            raise ProtocolError("calibration by folds needs genuine and impostor comparisons in all but each fold")
        predicted["logistic"][here] = fit_logistic(s[~here], g[~here])(s[here])
        predicted["isotonic"][here] = fit_isotonic(s[~here], g[~here])(s[here])
    whole = fit_logistic(s, g)
    steps = fit_isotonic(s, g)
    maps = {
        "logistic": {"slope": whole.slope, "offset": whole.offset, "prior": float(g.mean())},
        "isotonic": {"edges": steps.edges.tolist(), "values": steps.values.tolist(), "prior": float(g.mean())},
    }
    return {name: reliability(p, g) for name, p in predicted.items()}, maps


def _acquired(similarities: FloatArray, genuine: BoolArray) -> tuple[Float64, BoolArray]:
    s = np.asarray(similarities, np.float64)
    good = np.isfinite(s)
    error_curve(s[good], genuine[good])  # refuses a set without genuine or impostor comparisons
    return s[good], genuine[good]


def _sigmoid(x: Float64) -> Float64:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _logistic_loss(x: Float64, target: Float64) -> float:
    return float(np.sum(np.logaddexp(0, x) - target * x))


def _logit(p: float) -> float:
    if not 0 < p < 1:
        raise ProtocolError(f"a prior lies between 0 and 1, got {p}")
    return math.log(p / (1 - p))
