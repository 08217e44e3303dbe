"""Miners from the metric learning literature that look for one negative per genuine pair."""

from __future__ import annotations

import numpy as np

from visavis.losses.triplets.masked_distances import MaskedDistances, Rng, as_triplets
from visavis.losses.triplets.row_reductions import row_min, row_min_above
from visavis.types import Triplets

_INF = np.inf


def semi_hard(masked: MaskedDistances, *, margin: float, rng: Rng) -> Triplets:
    """For every genuine pair the closest negative beyond the positive but within the margin, if there is one.

    n = arg min {d(a, n) : d(a, p) < d(a, n) < d(a, p) + α}.

    Source: Schroff et al., "FaceNet", arXiv 1503.03832v3, eq. 4 (any such negative there; the closest here).
    """
    limit = masked.ap + masked.ap.dtype.type(margin)
    nearest, _ = row_min(masked.an)
    found = []
    for k in range(masked.ap.shape[1]):
        some = np.flatnonzero(nearest < limit[:, k])
        rows = masked.an if len(some) == len(masked.an) else masked.an[some]
        an, n = row_min_above(rows, masked.ap[some, k])
        hit = an < limit[some, k]
        found.append((some[hit], np.full(int(hit.sum()), k), n[hit]))
    a, k, n = (np.concatenate(x) for x in zip(*found, strict=True))
    return as_triplets(masked, (a, k), n)


def distance_weighted(
    masked: MaskedDistances,
    *,
    margin: float,
    rng: Rng,
    dim: int = 128,
    cutoff: float = 0.5,
    far: float = 1.4,
) -> Triplets:
    """For every genuine pair one negative drawn so that distances, not pictures, are about equally likely.

    P(n | a) ∝ 1 / q(d), q(d) ∝ d^(D−2) (1 − d²/4)^((D−3)/2), with d the plain (not squared) distance, raised to at
    least `cutoff`; negatives beyond `far`, which would give no loss, are never drawn. `margin` plays no part here.

    Args:
        dim: D, the embedding dimension.
        cutoff: distance below which a negative is no more likely, in (0, 2).
        far: largest distance drawn, in (0, 2].

    Source: Wu et al., "Sampling Matters in Deep Embedding Learning", arXiv 1706.07567v2, eq. 4 to 6.
    """
    squared = np.maximum(masked.an, masked.an.dtype.type(cutoff**2))
    with np.errstate(invalid="ignore"):  # inf · −inf where the identity is the anchor's own: never drawn
        g = squared * (1 - squared / 4)
    g[~(masked.an < min(far**2, 4.0))] = _INF
    closest = g.min(1)
    # 1/q = g^(-(D-3)/2) / d with g = d² (1 − d²/4): one power of a ratio in (0, 1], which cannot overflow.
    weight = (np.where(closest < _INF, closest, 1)[:, None] / g) ** masked.an.dtype.type((dim - 3) / 2)
    weight /= np.sqrt(squared)
    end = weight.cumsum(dtype=np.float64).reshape(weight.shape)
    last, first = end[:, -1], np.append(0.0, end[:-1, -1])
    a, k = np.nonzero((masked.ap > -_INF) & (closest < _INF)[:, None])
    target = first[a] + rng().random(len(a)) * (last - first)[a]
    place = np.searchsorted(end.reshape(-1), np.minimum(target, np.nextafter(last[a], 0)), side="right")
    return as_triplets(masked, (a, k), place - a * weight.shape[1])
