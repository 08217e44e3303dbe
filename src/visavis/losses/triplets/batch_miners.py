"""The five miners of MassFace, vectorized (rows M6 of the reference systems).

A triplet (a, p, n) *violates* the margin α when d(a, n) < d(a, p) + α, the "VGG style" filter: hard and semi-hard
negatives alike. Every miner has a switch `legacy`, the reference's behavior: positives only from after the anchor,
batch min-min and min-max identical, batch all clipped. Its grouping of unsorted labels (row M18) and the crash when no
triplet is left (M16) are not reproduced.

Source: Li, "MassFace: an efficient implementation using triplet loss for face recognition", arXiv 1902.11007v2, and
its published code.
"""

from __future__ import annotations

import numpy as np

from visavis.losses.triplets.masked_distances import MaskedDistances, Rng, as_triplets
from visavis.losses.triplets.row_reductions import below, row_min
from visavis.types import IntArray, Triplets

_INF = np.inf
_DRAWS = (6, 24)


def batch_all(
    masked: MaskedDistances, *, margin: float, rng: Rng, legacy: bool = False, max_triplets: int = 0
) -> Triplets:
    """Every violating triplet: {(a, p, n) : d(a, n) < d(a, p) + α}.

    `max_triplets` keeps a random choice of that many (0: all). With `legacy`, T triplets found in a batch of Q become
    ⌊min(10 Q, T) / 3⌋ random ones: the reference cuts the flattened index list by a count of triplets (row M17;
    where it would then crash on a remainder, the remainder is left out here).
    """
    limit = masked.ap + masked.ap.dtype.type(margin)
    nearest, _ = row_min(masked.an)
    a = np.flatnonzero((nearest[:, None] < limit).any(1))
    if len(a) == len(limit):
        an, positive = masked.an, masked.positive
    else:  # anchors without a violation cost little
        an, limit, positive = masked.an[a], limit[a], masked.positive[a]
    counts, n = below(an, limit)
    found = np.repeat(a, counts.sum(1)), np.repeat(positive.reshape(-1), counts.reshape(-1)), n
    keep = min(10 * len(masked.an), len(n)) // 3 if legacy else max_triplets
    if legacy or 0 < keep < len(n):
        chosen = rng().permutation(len(n))[:keep]
        return Triplets(*(x[chosen] for x in found))
    return Triplets(*found)


def batch_random(masked: MaskedDistances, *, margin: float, rng: Rng, legacy: bool = False) -> Triplets:
    """For every genuine pair (a, p) one negative, uniform among the violating ones; pairs without any are left out.

    A few blind draws per pair settle the pairs with many violations (the first that violates is uniform among them);
    the rest, whose violations are few, list them all. Cheaper than either alone, and as random.
    """
    nearest, _ = row_min(masked.an)
    limit = masked.ap + masked.ap.dtype.type(margin)
    (_, width), slots = masked.an.shape, limit.shape[1]
    pair = np.flatnonzero(nearest[:, None] < limit)
    limit, distances = limit.reshape(-1)[pair], masked.an.reshape(-1)
    generator = rng()
    settled: list[tuple[IntArray, IntArray]] = []
    for draws in _DRAWS:
        n = generator.integers(width, size=(len(pair), draws), dtype=np.uint32)
        hit = distances.take(n + (pair // slots * width)[:, None]) < limit[:, None]
        first = hit.argmax(1) + np.arange(len(pair)) * draws
        found = hit.reshape(-1).take(first)
        settled.append((pair[found], n.reshape(-1).take(first[found]).astype(np.int64)))
        pair, limit = pair[~found], limit[~found]
    counts, n = below(masked.an[pair // slots], limit[:, None])
    counts = counts[:, 0]
    place = np.cumsum(counts) - counts + (generator.random(len(pair)) * counts).astype(np.int64)
    settled.append((pair, n[place]))
    pair, n = (np.concatenate(x) for x in zip(*settled, strict=True))
    return as_triplets(masked, np.divmod(pair, slots), n)


def batch_min_min(masked: MaskedDistances, *, margin: float, rng: Rng, legacy: bool = False) -> Triplets:
    """Per anchor the genuine pair whose closest violating negative is closest: min over p of min over n of the gap.

    (p, n) = arg min_p min_n (d(a, n) − d(a, p)) over violating triplets: the worst violation of each anchor. The gap,
    not d(a, n) alone, must decide: the closest negative of an anchor is the same for all its positives, so the
    reference's comparison is a tie that its first violating positive wins (`legacy`).
    """
    return _per_anchor(masked, margin, farthest=False, legacy=legacy)


def batch_min_max(masked: MaskedDistances, *, margin: float, rng: Rng, legacy: bool = False) -> Triplets:
    """Per anchor the genuine pair whose closest violating negative is farthest: max over p of min over n of the gap.

    (p, n) = arg max_p min_n (d(a, n) − d(a, p)) over violating triplets: the positive that is closest of those still
    violated, the mildest lesson with the hardest negative. `legacy` is the same as that of `batch_min_min` (row M6).
    """
    return _per_anchor(masked, margin, farthest=True, legacy=legacy)


def batch_hardest(masked: MaskedDistances, *, margin: float, rng: Rng, legacy: bool = False) -> Triplets:
    """Per anchor the farthest positive and the closest negative, violating or not.

    Source: Hermans et al., "In Defense of the Triplet Loss", arXiv 1703.07737v4, eq. 5.
    """
    k = masked.ap.argmax(1)
    an, n = row_min(masked.an)
    a = np.flatnonzero((masked.ap[np.arange(len(k)), k] > -_INF) & (an < _INF))
    return as_triplets(masked, (a, k[a]), n[a])


def _per_anchor(masked: MaskedDistances, margin: float, *, farthest: bool, legacy: bool) -> Triplets:
    an, n = row_min(masked.an)
    violated = an[:, None] < masked.ap + masked.ap.dtype.type(margin)
    if legacy:
        k = violated.argmax(1)
    elif farthest:
        k = np.where(violated, masked.ap, _INF).argmin(1)
    else:
        k = masked.ap.argmax(1)
    a = np.flatnonzero(violated.any(1))
    return as_triplets(masked, (a, k[a]), n[a])
