"""What every miner looks at: for each query its genuine distances, packed, and its impostor distances, masked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.errors import DataError
from visavis.types import Triplets

_INF = float("inf")


@dataclass(frozen=True)
class View:
    """Genuine and impostor distances of Q queries to R references; K is the size of the largest identity met.

    positive: (Q, K) reference index of each genuine slot; what an unused slot holds means nothing.
    ap: (Q, K) its distance, −inf in unused slots.
    an: (Q, R) distances, +inf where the reference is of the query's own identity.
    """

    positive: Tensor
    ap: Tensor
    an: Tensor


def look(
    distances: Tensor,
    labels: Tensor,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    *,
    later_only: bool = False,
) -> View:
    """Sort a distance matrix into genuine and impostor comparisons; any class sizes, any order of labels.

    Args:
        distances: (Q, R), d(query, reference).
        labels: (Q,) identity of each query.
        reference_labels: (R,) identity of each reference; None when the references are the queries.
        own: (Q,) which reference is the query itself, −1 for none, so that no picture is its own positive. None means
            the queries in order when `reference_labels` is None, and "not among the references" otherwise.
        later_only: only positives that come after the anchor count (rows M6: p > a).

    Raises:
        DataError: shapes that do not fit.
    """
    distances = distances.detach()
    distances = distances.float() if distances.dtype in (torch.float16, torch.bfloat16) else distances
    if reference_labels is None:
        reference_labels = labels
        own = torch.arange(len(labels), device=labels.device) if own is None else own
    if distances.shape != (len(labels), len(reference_labels)):
        raise DataError(
            f"mining wants distances of {len(labels)} queries to {len(reference_labels)} references, "
            f"got shape {tuple(distances.shape)}"
        )
    if distances.numel() == 0:
        empty = distances.new_empty((len(labels), 0))
        return View(torch.empty(empty.shape, dtype=torch.long, device=empty.device), empty, distances)
    ordered, order = torch.sort(reference_labels, stable=True)
    begin = torch.searchsorted(ordered, labels)[:, None]
    end = torch.searchsorted(ordered, labels, right=True)[:, None]
    slots = begin + torch.arange(int((end - begin).max()), device=labels.device)
    used = slots < end
    positive = order[torch.minimum(slots, end - 1).clamp_(min=0)]
    raw = distances.gather(1, positive)
    # An identity without references must not mask the stranger its unused slots point at: rewrite what is there.
    an = distances.scatter(1, positive, raw.masked_fill(end > begin, _INF))
    if own is not None:
        used &= (positive > own[:, None]) if later_only else (positive != own[:, None])
    return View(positive, raw.masked_fill_(~used, -_INF), an)


def as_triplets(anchor: Tensor, positive: Tensor, negative: Tensor) -> Triplets:
    """Index tensors as the frozen NumPy record."""
    a, p, n = (x.cpu().numpy() for x in (anchor, positive, negative))
    return Triplets(a, p, n)


def no_triplets(view: View) -> Triplets:
    """The empty answer."""
    nothing = torch.empty(0, dtype=torch.long, device=view.an.device)
    return as_triplets(nothing, nothing, nothing)
