"""The triplet loss over mined triplets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from visavis import seeding
from visavis.distributed.gather import gather_rows, total, world_size
from visavis.errors import RecipeError
from visavis.losses.triplets.distances import squared_l2, unit_rows
from visavis.losses.triplets.miners import build_miner
from visavis.types import Triplets

if TYPE_CHECKING:
    from jaxtyping import Float, Integer


def triplet_loss(
    distances: Float[Tensor, "Q R"], triplets: Triplets, *, margin: float, soft_margin: bool = False
) -> Tensor:
    """L = mean over triplets of max(0, d(a, p) − d(a, n) + α); 0 with a gradient of 0 when there are none.

    With `soft_margin`, mean of log(1 + exp(d(a, p) − d(a, n))) and α has no part in it. Distances are squared L2 of
    unit rows as in FaceNet and in the reference (row M5); Hermans et al. take the root.

    Args:
        distances: (Q, R), with a graph; `distances.l2` makes plain ones of squared ones.
        triplets: anchors index Q, positives and negatives R.
        margin: α ≥ 0 in units of the distance.
        soft_margin: use softplus.

    Source: Schroff et al., arXiv 1503.03832v3, eq. 3; Hermans et al., arXiv 1703.07737v4, section 2 (soft margin).
    """
    if len(triplets) == 0:
        return (distances * 0.0).sum()
    ap, an = (distances[a, r] for a, r in _indices(triplets, distances.device))
    return functional.softplus(ap - an).mean() if soft_margin else functional.relu(ap - an + margin).mean()


def _indices(triplets: Triplets, device: torch.device) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    a, p, n = (torch.as_tensor(x, device=device) for x in (triplets.anchor, triplets.positive, triplets.negative))
    return (a, p), (a, n)


class TripletObjective(nn.Module):
    """Mine the batch (all ranks' batches together), then the mean triplet loss over all that was found anywhere.

    Miners that draw have a generator seeded by (seed, call, rank), and the number of calls is part of the state, so
    that a resumed run draws what an uninterrupted one would. `last` holds, for the logbook, the loss, how many triplets
    this rank mined, the share of them with a positive loss and their mean distances.

    Args:
        miner: a name in MINERS.
        miner_args: its options.
        margin: α in [0, 4], in units of squared distance.
        soft_margin: as in `triplet_loss`; α still decides which triplets are mined.
        seed: 0 or more.

    Raises:
        RecipeError: unknown miner or option, or a margin out of range.
    """

    calls: Tensor

    def __init__(
        self,
        *,
        miner: str,
        miner_args: Mapping[str, Any] | None = None,
        margin: float = 0.25,
        soft_margin: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 <= margin <= 4.0:
            raise RecipeError(f"triplet.margin must lie in [0, 4], the range of squared distances, got {margin}")
        self.miner = build_miner(miner, **(miner_args or {}))
        self.margin, self.soft_margin, self.seed = margin, soft_margin, seed
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.last: dict[str, Any] = {}
        self.mined: Triplets | None = None

    def generator(self, device: torch.device) -> torch.Generator:
        """The generator of this call; its state follows from seed, call and rank alone."""
        rank = distributed.get_rank() if world_size() > 1 else 0
        return torch.Generator(device).manual_seed(seeding.derived(self.seed, "triplets", int(self.calls), rank))

    def forward(
        self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " B"], triplets: Triplets | None = None
    ) -> Tensor:
        """The loss of raw embeddings (B, D) with labels (B,); given `triplets` index the batch and spare the mining."""
        rows = unit_rows(embeddings)
        if triplets is None:
            references, begin = gather_rows(rows)
            reference_labels, _ = gather_rows(labels)
            own = torch.arange(begin, begin + len(labels), device=labels.device)
            distances = squared_l2(rows, references)
            triplets = self.miner(
                distances.detach(),
                labels,
                margin=self.margin,
                generator=self.generator(labels.device),
                reference_labels=reference_labels,
                own=own,
            )
        else:
            distances = squared_l2(rows, rows)
        self.calls += 1
        self.mined = triplets
        loss = triplet_loss(distances, triplets, margin=self.margin, soft_margin=self.soft_margin)
        everywhere = total(len(triplets), labels.device)
        if everywhere and world_size() > 1:
            # RankGroup find different numbers; what averages gradients over ranks must see the mean over all triplets.
            loss = loss * (len(triplets) * world_size() / everywhere)
        self.last = {"triplet_loss": loss.detach(), "triplets": len(triplets), **self._figures(distances, triplets)}
        return loss

    @torch.no_grad()
    def _figures(self, distances: Tensor, triplets: Triplets) -> dict[str, Tensor]:
        if len(triplets) == 0:
            return {}
        ap, an = (distances[a, r] for a, r in _indices(triplets, distances.device))
        active = (ap - an + self.margin > 0).to(ap.dtype).mean()
        return {"active": active, "positive_distance": ap.mean(), "negative_distance": an.mean()}
