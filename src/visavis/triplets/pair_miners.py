"""Miners from the metric learning literature that look for one negative per genuine pair."""

from __future__ import annotations

import torch
from torch import Tensor

from visavis.triplets.rows import row_min
from visavis.triplets.view import as_triplets, look, no_triplets
from visavis.types import Triplets

_INF = float("inf")


def semi_hard(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
) -> Triplets:
    """For every genuine pair the closest negative beyond the positive but within the margin, if there is one.

    n = arg min {d(a, n) : d(a, p) < d(a, n) < d(a, p) + α}.

    Source: Schroff et al., "FaceNet", arXiv 1503.03832v3, eq. 4 (any such negative there; the closest here).
    """
    view = look(distances, labels, reference_labels, own)
    if view.ap.shape[1] == 0:
        return no_triplets(view)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    nearest, _ = row_min(view.an)
    for slot in range(view.ap.shape[1]):
        some = (nearest < view.ap[:, slot] + margin).nonzero()[:, 0]
        ap = view.ap[some, slot]
        an, n = row_min(view.an[some], above=ap)
        hit = an < ap + margin
        found.append((some[hit], view.positive[some[hit], slot], n[hit]))
    return as_triplets(*(torch.cat(x) for x in zip(*found, strict=True)))


def distance_weighted(
    distances: Tensor,
    labels: Tensor,
    *,
    margin: float,
    generator: torch.Generator | None = None,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
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
    view = look(distances, labels, reference_labels, own)
    clamped = view.an.clamp(min=cutoff**2)
    log_weight = -(dim - 2) / 2 * clamped.log() - (dim - 3) / 2 * torch.log1p(-clamped / 4).nan_to_num(nan=-_INF)
    log_weight.masked_fill_(~(view.an < min(far**2, 4.0)), -_INF)
    reachable = (log_weight > -_INF).any(1)
    a, slot = ((view.ap > -_INF) & reachable[:, None]).nonzero(as_tuple=True)
    if len(a) == 0:
        return no_triplets(view)
    rows, row = a.unique(return_inverse=True)
    weight = (log_weight[rows] - log_weight[rows].amax(1, keepdim=True)).exp()
    drawn = torch.multinomial(weight, view.ap.shape[1], replacement=True, generator=generator)
    return as_triplets(a, view.positive[a, slot], drawn[row, slot])
