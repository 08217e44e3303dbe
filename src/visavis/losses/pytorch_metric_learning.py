"""Losses and miners between visavis and pytorch-metric-learning, both ways; the package itself is not imported here.

There a miner gives a tuple of index tensors (anchors, positives, negatives), and a loss takes it as a third argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from visavis.errors import DataError
from visavis.types import Triplets

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

IndexTuple = tuple[Tensor, Tensor, Tensor]


def as_indices(triplets: Triplets, device: torch.device | str = "cpu") -> IndexTuple:
    """Triplets as the tuple that pytorch-metric-learning's losses take: three int64 tensors (T,)."""
    first, second, third = (
        torch.as_tensor(index, dtype=torch.int64, device=device)
        for index in (triplets.anchor, triplets.positive, triplets.negative)
    )
    return first, second, third


def as_triplets(indices: Any) -> Triplets:
    """What a miner of pytorch-metric-learning found, as Triplets.

    Raises:
        DataError: not a tuple of three index tensors of one length (its pair miners give four).
    """
    if not isinstance(indices, tuple | list) or len(indices) != 3:
        shown = len(indices) if isinstance(indices, tuple | list) else type(indices).__name__
        raise DataError(
            f"expected a triplet miner's (anchors, positives, negatives), got {shown}; pair miners give four"
        )
    anchor, positive, negative = (index.detach().cpu().numpy() for index in indices)
    if not len(anchor) == len(positive) == len(negative):
        raise DataError(f"expected three indices of one length, got {len(anchor)}, {len(positive)}, {len(negative)}")
    return Triplets(anchor, positive, negative)


class MinerFrom:
    """A triplet miner of pytorch-metric-learning for `TripletLoss`: `loss(x, y, MinerFrom(theirs)(x, y))`."""

    def __init__(self, miner: Callable[..., Any]) -> None:
        self.miner = miner

    def __call__(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " B"]) -> Triplets:
        """Triplets of raw embeddings (B, D) with labels (B,)."""
        return as_triplets(self.miner(embeddings, labels))


class MinerFor:
    """A miner of `visavis.losses.triplets` for pytorch-metric-learning: `theirs(x, y, MinerFor(SemiHard())(x, y))`."""

    def __init__(self, miner: Callable[[Tensor, Tensor], Triplets]) -> None:
        self.miner = miner

    def __call__(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " B"], *_: Any) -> IndexTuple:
        """Three int64 tensors (T,) on the embeddings' device."""
        return as_indices(self.miner(embeddings, labels), embeddings.device)


class LossFor(nn.Module):
    """A loss of `visavis.losses` as pytorch-metric-learning's trainers call one, with a third argument they may give.

    A margin loss looks at all classes and ignores mined indices, as theirs do.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " B"], indices_tuple: Any = None, *_: Any
    ) -> Float[Tensor, ""]:
        """The loss of raw embeddings (B, D) with labels (B,)."""
        if indices_tuple is not None and hasattr(self.loss, "miner"):
            return self.loss(embeddings, labels, as_triplets(indices_tuple))
        return self.loss(embeddings, labels)
