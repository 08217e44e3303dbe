"""What a run minimizes: the weighted sum of a classification head, a triplet loss and a teacher's loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visavis.errors import RecipeError, unknown_name
from visavis.losses.heads import HEADS, build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.triplets import MINERS
from visavis.train.finetune.distillation import Distillation, Teacher
from visavis.train.recipe import Recipe
from visavis.types import Triplets


class Objective(nn.Module):
    """loss = w_h · L_head(x, y) + w_t · L_triplet(x, y) + L_distill(x, crops), of raw x (B, D) and labels y (B,).

    `last` holds the parts of the latest loss for the logbook.
    """

    def __init__(self, recipe: Recipe, *, num_classes: int, dim: int, teacher: Teacher | None = None) -> None:
        super().__init__()
        wanted = recipe.head
        self.head_weight, self.triplet_weight = wanted.weight, recipe.triplet.weight
        self.head: MarginSoftmax | None = None
        if wanted.name != "none":
            if wanted.name not in HEADS:
                raise RecipeError(unknown_name("head", wanted.name, [*HEADS, "none"]))
            self.head = MarginSoftmax(
                build_head(wanted.name, **wanted.args),
                num_classes=num_classes,
                dim=dim,
                sub_centers=wanted.sub_centers,
                label_smoothing=wanted.label_smoothing,
                center_loss=wanted.center_loss,
                norm_weight_power=wanted.norm_weight_power,
                sample_rate=wanted.sample_rate,
                sparse=wanted.sample_rate < 1 and recipe.optimizer.name == "sgd",
                seed=recipe.seed,
                init_std=wanted.init_std or None,
            )
        self.triplet = _triplet(recipe) if self.triplet_weight else None
        self.distillation = Distillation(recipe.distill, teacher, dim=dim) if teacher else None
        self.last: dict[str, Any] = {}

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        teacher_crops: Tensor | None = None,
        triplets: Triplets | None = None,
    ) -> Tensor:
        """The loss, a scalar; with a teacher, its uint8 crops (B, H, W, 3) of the same pictures are needed.

        `triplets` mined from a pool spare the mining of the batch.
        """
        self.last = {}
        loss = embeddings.new_zeros(())
        if self.head is not None:
            loss = loss + self.head_weight * self.head(embeddings, labels)
            if self.head.last is not None:
                self.last |= {"accuracy": self.head.last.accuracy, "target_cosine": self.head.last.target_cosine}
        if self.triplet is not None:
            part = self.triplet(embeddings, labels, triplets)
            self.last |= self.triplet.last
            loss = loss + self.triplet_weight * part
        if self.distillation is not None:
            assert teacher_crops is not None
            loss = loss + self.distillation(embeddings, teacher_crops)
            self.last |= self.distillation.last
        return loss


def _triplet(recipe: Recipe) -> Any:
    if recipe.triplet.miner not in MINERS:
        raise RecipeError(unknown_name("miner", recipe.triplet.miner, MINERS))
    from visavis.losses.triplets.loss import TripletObjective

    return TripletObjective(
        miner=recipe.triplet.miner,
        miner_args=recipe.triplet.miner_args,
        margin=recipe.triplet.margin,
        soft_margin=recipe.triplet.soft_margin,
        seed=recipe.seed,
    )


def check_objective(recipe: Recipe) -> None:
    """Refuse a miner that there is not, or an argument it has not.

    Raises:
        RecipeError: names the nearest.
    """
    if recipe.triplet.weight:
        _triplet(recipe)


def is_finite(loss: Tensor, norm: Tensor) -> bool:
    """Whether a step may be taken: neither the loss nor the gradient's norm is NaN or infinite; both 0-d."""
    return bool(torch.isfinite(loss) & torch.isfinite(norm))
