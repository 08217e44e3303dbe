"""Terms beside the head: distance to the class mean, and weights by the quality of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from visavis.distributed.collectives import RankGroup
from visavis.losses.head import checked

if TYPE_CHECKING:
    from jaxtyping import Float, Integer


class CenterLoss(nn.Module):
    """λ/2 · mean_i ‖x_i − c_{y_i}‖², c being running means of the features of each class.

    After the loss, every class present moves by c_j ← c_j − α Σ_{y_i=j} (c_j − x_i) / (1 + n_j). The features are raw,
    as in the paper; the paper sums over the batch where this takes the mean, so its λ is ours divided by B. The
    centers are state, not parameters, start at 0 and are split over the ranks like the classes.

    Args:
        start, stop: the classes of this rank.
        dim: D.
        weight: λ > 0.
        rate: α in (0, 1].
        ranks: the processes the classes are split over.

    Source: Wen et al., ECCV 2016, "A Discriminative Feature Learning Approach for Deep Face Recognition", eqs. 2–4.
    """

    def __init__(self, start: int, stop: int, dim: int, *, weight: float, rate: float = 0.5, ranks: RankGroup) -> None:
        super().__init__()
        self.start, self.stop, self.ranks = start, stop, ranks
        self.weight = weight
        self.rate = checked("center loss rate", rate, 0.0, 1.0, open_low=True)
        self.means: Tensor
        self.register_buffer("means", torch.zeros(stop - start, dim))

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, " B"], *, move: bool) -> Tensor:
        """The loss of the gathered batch (B, D), (B,); then moves the centers, if wanted."""
        here = (labels >= self.start) & (labels < self.stop)
        rows = (labels - self.start).clamp(0, len(self.means) - 1)
        own = torch.where(here[:, None], self.means[rows], 0.0).to(embeddings.dtype)
        distance = embeddings - self.ranks.sum(own)
        if move:
            with torch.no_grad():
                present, slot = torch.unique(rows[here], return_inverse=True)
                pull = torch.zeros(len(present), distance.shape[1], dtype=distance.dtype, device=distance.device)
                pull.index_add_(0, slot, distance[here])
                count = torch.bincount(slot, minlength=len(present)).to(pull.dtype)
                self.means[present] += (self.rate * pull / (1.0 + count)[:, None]).to(self.means.dtype)
        return self.weight * 0.5 * distance.square().sum(1).mean()


def norm_weights(norm: Float[Tensor, " B"], power: float) -> Float[Tensor, " B"]:
    """w_i = ‖x_i‖^γ / mean ‖x‖^γ (B,), without gradient: samples of poor quality, short features, count less.

    That the norm of a feature follows its picture's quality is the observation AdaFace rests on (arXiv:2204.00964).
    """
    weights = norm.detach().clamp_min(1e-6).pow(power)
    return weights / weights.mean()
