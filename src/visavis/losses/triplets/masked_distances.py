"""What every miner looks at: for each query its genuine distances, packed, and its impostor distances, masked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis.errors import DataError
from visavis.types import BoolArray, FloatArray, IntArray, Triplets

_INF = np.inf

Rng = Callable[[], np.random.Generator]


@dataclass(frozen=True)
class MaskedDistances:
    """Genuine and impostor distances of Q queries to R references; K is the largest number of positives of a query.

    positive: (Q, K) reference index of each genuine slot; what an unused slot holds means nothing.
    ap: (Q, K) its distance, −inf in unused slots.
    an: (Q, R) distances, +inf where the reference is of the query's own identity.
    """

    positive: IntArray
    ap: FloatArray
    an: FloatArray


def mask_by_identity(
    distances: Tensor,
    labels: Tensor,
    reference_labels: Tensor | None = None,
    own: Tensor | None = None,
    *,
    later_only: bool = False,
) -> MaskedDistances:
    """Sort a distance matrix into genuine and impostor comparisons; any class sizes, any order of labels, any device.

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
    queries = _array(labels)
    references = queries if reference_labels is None else _array(reference_labels)
    if distances.shape != (len(queries), len(references)):
        raise DataError(
            f"mining wants distances of {len(queries)} queries to {len(references)} references, "
            f"got shape {tuple(distances.shape)}"
        )
    values = _array(distances.float() if distances.dtype in (torch.float16, torch.bfloat16) else distances)
    if reference_labels is None and own is None:
        itself = np.arange(len(queries))
    else:
        itself = np.full(len(queries), -1) if own is None else _array(own)
    if values.size == 0:
        empty = np.empty((len(queries), 0))
        return MaskedDistances(empty.astype(np.int64), empty.astype(values.dtype), values)
    positive, used = _positives(queries, references, itself)
    row = np.arange(len(queries))[:, None]
    ap, an = values[row, positive], values.copy()
    flat = row * len(references) + positive
    an.reshape(-1)[flat if used.all() else flat[used]] = _INF
    known = itself >= 0
    an[row[known, 0], itself[known]] = _INF
    if later_only:
        used &= positive > itself[:, None]
    ap[~used] = -_INF
    return MaskedDistances(positive, ap, an)


def _positives(queries: IntArray, references: IntArray, itself: IntArray) -> tuple[IntArray, BoolArray]:
    """References of each query's identity other than itself, side by side, and which of the slots (Q, K) are used."""
    order = np.argsort(references, kind="stable")
    ordered = references[order]
    begin, end = np.searchsorted(ordered, queries), np.searchsorted(ordered, queries, side="right")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    known = itself >= 0
    mine = np.where(known, place[itself], len(order))
    slots = begin[:, None] + np.arange(max(0, int((end - begin - known).max())))
    slots += slots >= mine[:, None]
    return order[np.minimum(slots, len(order) - 1)], slots < end[:, None]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def as_triplets(masked: MaskedDistances, slot: tuple[IntArray, IntArray], negative: IntArray) -> Triplets:
    """Anchors and positives of the genuine slots (q, k), with a negative each.

    Shapes: `slot` two vectors (T,), `negative` (T,).
    """
    return Triplets(slot[0], masked.positive[slot], negative)
