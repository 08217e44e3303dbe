"""The five miners of MassFace, vectorised (rows M6 of the reference systems).

A triplet (a, p, n) *violates* the margin α when d(a, n) < d(a, p) + α, the "VGG style" filter: hard and semi-hard
negatives alike. Every miner has a switch `legacy`, the reference's behaviour: positives only from after the anchor,
batch min-min and min-max identical, batch all clipped. Its grouping of unsorted labels (row M18) and the crash when no
triplet is left (M16) are not reproduced.

Source: Li, "MassFace: an efficient implementation using triplet loss for face recognition", arXiv 1902.11007v2, and
its published code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.triplets.rows import row_min, where_below
from visavis.triplets.view import View, as_triplets, look, no_triplets
from visavis.types import Triplets

_INF = float("inf")
_DRAWS = (8, 32)


def batch_all(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    legacy: bool = False,
    max_triplets: int = 0,
) -> Triplets:
    """Every violating triplet: {(a, p, n) : d(a, n) < d(a, p) + α}.

    `max_triplets` keeps a random choice of that many (0: all). With `legacy`, T triplets found in a batch of Q become
    ⌊min(10 Q, T) / 3⌋ random ones: the reference cuts the flattened index list by a count of triplets (row M17;
    where it would then crash on a remainder, the remainder is left out here).
    """
    view = look(distances, labels, reference_labels, own, later_only=legacy)
    a, p, n = _violations(view, view.ap + margin)
    keep = min(10 * len(labels), len(a)) // 3 if legacy else max_triplets
    if legacy or 0 < keep < len(a):
        chosen = torch.randperm(len(a), generator=generator, device=a.device)[:keep]
        a, p, n = a[chosen], p[chosen], n[chosen]
    return as_triplets(a, p, n)


def batch_random(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    legacy: bool = False,
) -> Triplets:
    """For every genuine pair (a, p) one negative, uniform among the violating ones; pairs without any are left out.

    A few blind draws per pair settle the pairs with many violations (the first that violates is uniform among them);
    the rest, whose violations are few, list them all. Cheaper than either alone, and as random.
    """
    view = look(distances, labels, reference_labels, own, later_only=legacy)
    if view.ap.shape[1] == 0:
        return no_triplets(view)
    nearest, _ = row_min(view.an)
    every_limit = view.ap + margin
    a, slot = (nearest[:, None] < every_limit).nonzero(as_tuple=True)
    settled: list[tuple[Tensor, Tensor, Tensor]] = []
    for draws in _DRAWS:
        n = torch.randint(view.an.shape[1], (len(a), draws), generator=generator, device=a.device)
        hit = view.an[a[:, None], n] < every_limit[a, slot][:, None]
        found = hit.any(1)
        n = n.gather(1, hit.int().argmax(1, keepdim=True))[:, 0]
        settled.append((a[found], view.positive[a, slot][found], n[found]))
        a, slot = a[~found], slot[~found]
    p, limit = view.positive[a, slot], every_limit[a, slot]
    ra, rp, rn = where_below(view.an[a], limit[:, None], a[:, None], p[:, None])
    score = torch.rand(len(ra), generator=generator, device=ra.device)
    best = _first_best(ra * view.an.shape[1] + rp, score)
    settled.append((ra[best], rp[best], rn[best]))
    return as_triplets(*(torch.cat(x) for x in zip(*settled, strict=True)))


def batch_min_min(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    legacy: bool = False,
) -> Triplets:
    """Per anchor the genuine pair whose closest violating negative is closest: min over p of min over n of the gap.

    (p, n) = arg min_p min_n (d(a, n) − d(a, p)) over violating triplets: the worst violation of each anchor. The gap,
    not d(a, n) alone, must decide: the closest negative of an anchor is the same for all its positives, so the
    reference's comparison is a tie that its first violating positive wins (`legacy`).
    """
    view = look(distances, labels, reference_labels, own, later_only=legacy)
    return _per_anchor(view, margin, farthest=False, legacy=legacy)


def batch_min_max(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    legacy: bool = False,
) -> Triplets:
    """Per anchor the genuine pair whose closest violating negative is farthest: max over p of min over n of the gap.

    (p, n) = arg max_p min_n (d(a, n) − d(a, p)) over violating triplets: the positive that is closest of those still
    violated, the mildest lesson with the hardest negative. `legacy` is the same as that of `batch_min_min` (row M6).
    """
    view = look(distances, labels, reference_labels, own, later_only=legacy)
    return _per_anchor(view, margin, farthest=True, legacy=legacy)


def batch_hardest(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    legacy: bool = False,
) -> Triplets:
    """Per anchor the farthest positive and the closest negative, violating or not.

    Source: Hermans et al., "In Defense of the Triplet Loss", arXiv 1703.07737v4, eq. 5.
    """
    view = look(distances, labels, reference_labels, own, later_only=legacy)
    if view.ap.shape[1] == 0:
        return no_triplets(view)
    ap, slot = view.ap.max(1)
    an, n = row_min(view.an)
    a = ((ap > -_INF) & (an < _INF)).nonzero()[:, 0]
    return as_triplets(a, view.positive[a, slot[a]], n[a])


def _violations(view: View, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All (a, p, n) with d(a, n) < limit(a, p); `limit` (Q, K) by slot. Anchors without any cost little."""
    if limit.shape[1] == 0:
        nothing = torch.empty(0, dtype=torch.long, device=limit.device)
        return nothing, nothing, nothing
    nearest, _ = row_min(view.an)
    some = (nearest < limit.amax(1)).nonzero()[:, 0]
    whole = len(some) == len(limit)
    an, limit, positive = (x if whole else x[some] for x in (view.an, limit, view.positive))
    a, p, n = where_below(an, limit, some[:, None].expand_as(limit), positive)
    return a, p, n


def _first_best(group: Tensor, score: Tensor) -> Tensor:
    """Where the highest score of each group is (the first, if several); (G,)."""
    groups, member = group.unique(return_inverse=True)
    best = score.new_full((len(groups),), -_INF).scatter_reduce_(0, member, score, "amax")
    where = (score == best[member]).nonzero()[:, 0]
    first = torch.full((len(groups),), len(score), device=group.device)
    return first.scatter_reduce_(0, member[where], where, "amin")


def _per_anchor(view: View, margin: float, *, farthest: bool, legacy: bool) -> Triplets:
    if view.ap.shape[1] == 0:
        return no_triplets(view)
    an, n = row_min(view.an)
    violated = an[:, None] < view.ap + margin
    if legacy:
        slot = violated.int().argmax(1)
    elif farthest:
        slot = view.ap.masked_fill(~violated, _INF).argmin(1)
    else:
        slot = view.ap.argmax(1)
    a = violated.any(1).nonzero()[:, 0]
    return as_triplets(a, view.positive[a, slot[a]], n[a])
