"""Miners and the triplet loss over embeddings, for anybody's loop: `TripletLoss(margin=0.2, miner=SemiHard())`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from visavis.losses.triplets.distances import squared_l2, unit_rows
from visavis.losses.triplets.loss import TripletObjective
from visavis.losses.triplets.miners import build_miner
from visavis.types import Triplets

if TYPE_CHECKING:
    from jaxtyping import Float, Integer


class EmbeddingMiner:
    """Triplets of a batch: raw embeddings (B, D) and labels (B,) in, indices into the batch out, without gradient.

    Args:
        margin: α in units of squared distance of unit rows; which triplets violate it is what most miners ask.
        generator: draws for the random miners; PyTorch's own when None.
        **options: of the miner; see `visavis.losses.triplets.MINERS`.

    Raises:
        RecipeError: an option the miner does not have.
    """

    name: ClassVar[str]

    def __init__(self, *, margin: float = 0.25, generator: torch.Generator | None = None, **options: Any) -> None:
        self.miner = build_miner(self.name, **options)
        self.margin, self.generator = margin, generator

    def __call__(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " B"]) -> Triplets:
        """The triplets of one batch; none is a valid answer."""
        with torch.no_grad():
            rows = unit_rows(embeddings)
            return self.miner(squared_l2(rows, rows), labels, margin=self.margin, generator=self.generator)


class BatchAll(EmbeddingMiner):
    """All triplets that violate the margin."""

    name = "batch_all"


class BatchRandom(EmbeddingMiner):
    """For each genuine pair one violating negative, drawn at random."""

    name = "batch_random"


class BatchMinMin(EmbeddingMiner):
    """MassFace's min-min: the nearest positive and the nearest negative."""

    name = "batch_min_min"


class BatchMinMax(EmbeddingMiner):
    """MassFace's min-max."""

    name = "batch_min_max"


class BatchHardest(EmbeddingMiner):
    """For each anchor the farthest positive and the nearest negative."""

    name = "batch_hardest"


class SemiHard(EmbeddingMiner):
    """For each genuine pair the nearest negative that is farther than the positive."""

    name = "semi_hard"


class DistanceWeighted(EmbeddingMiner):
    """Negatives drawn with weights inverse to the density of distances on the sphere."""

    name = "distance_weighted"


class TripletLoss(TripletObjective):
    """Mean over triplets of max(0, d(a, p) − d(a, n) + α), d the squared distance of unit rows.

    `loss(embeddings, labels)` mines by `miner`, over the batches of all ranks; `loss(embeddings, labels, triplets)`
    takes what another miner found in this batch.

    Args:
        margin: α in [0, 4], of the loss and of its miner.
        miner: one of this file, or its name in MINERS.
        soft_margin: log(1 + exp(d(a, p) − d(a, n))) instead.
        seed: of a miner that draws.

    Raises:
        RecipeError: an unknown miner, or a margin out of range.
    """

    def __init__(
        self,
        margin: float = 0.25,
        *,
        miner: EmbeddingMiner | str = "batch_all",
        soft_margin: bool = False,
        seed: int = 0,
    ) -> None:
        name = miner if isinstance(miner, str) else miner.name
        options = {} if isinstance(miner, str) else dict(miner.miner.options)
        super().__init__(miner=name, miner_args=options, margin=margin, soft_margin=soft_margin, seed=seed)
