"""Knowledge distillation: a student learns to embed as a teacher does, whatever the teacher's size or file format."""

from __future__ import annotations

import logging
from typing import Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize, smooth_l1_loss

from visavis.models.card import WEIGHTS
from visavis.models.find import find_model
from visavis.models.torch import TorchEmbedder, load_model
from visavis.train.recipe import DistillRecipe
from visavis.types import Embedder
from visavis.vision.preprocessing import PreprocessSpec, fit_crops

log = logging.getLogger(__name__)
GROUP = 64  # pictures within which angles are compared: their number grows with the cube


class Teacher(Embedder, Protocol):
    """An embedder that says how its pictures must look."""

    spec: PreprocessSpec


def open_teacher(recipe: DistillRecipe, size: tuple[int, int], device: torch.device) -> Teacher | None:
    """The teacher a recipe names, on the device where it has weights; None when it names none.

    Args:
        recipe: `teacher` is a model folder, a run folder, an .onnx or an OpenVINO file.
        size: (height, width) of the training pictures, from which the teacher's crops must be had.
        device: where to run it.

    Raises:
        ModelFormatError: no such model. DataError: its crops cannot be cut from pictures of this size.
    """
    if not recipe.teacher:
        return None
    found = find_model(recipe.teacher)
    if found.is_dir() and (found / WEIGHTS).is_file():
        network, card = load_model(found, device=device)
        teacher: Teacher = TorchEmbedder(network, card.preprocess, device=device, batch_size=128)
    else:
        from visavis.models.load import load_embedder

        teacher = cast(Teacher, load_embedder(found))
    fit_crops(np.zeros((1, *size, 3), np.uint8), teacher.spec)
    log.info("teacher: %s, %d-d, crops %d×%d", recipe.teacher, teacher.dim, *teacher.spec.size)
    return teacher


class Distillation(nn.Module):
    """L = w · mean_i(1 − cos(P x_i, t_i)) + w_r · (L_D + 2·L_A), from student embeddings x and the teacher's t.

    P is a learned matrix where student and teacher differ in dimension, else absent. L_D and L_A compare the distances
    and angles within the batch (`relational_distance`, `relational_angle`); both need no P.

    Args:
        recipe: the weights w (`weight`) and w_r (`relational`), each 0 or more.
        teacher: its `embed` is called on the crops given to forward.
        dim: D of the student.

    Source of the relational part: Park et al., arXiv 1904.05068v2, equations 4 to 9, with its ratio 1 : 2 of distance
    and angle for metric learning (section 4.1).
    """

    def __init__(self, recipe: DistillRecipe, teacher: Teacher, *, dim: int) -> None:
        super().__init__()
        self.weight, self.relational, self.teacher = recipe.weight, recipe.relational, teacher
        self.projection = nn.Linear(dim, teacher.dim, bias=False) if dim != teacher.dim and self.weight else None
        if self.projection is not None:
            self.projection.weight.register_hook(_mean_over_ranks)
        self.last: dict[str, Tensor] = {}

    def forward(self, embeddings: Tensor, crops: Tensor) -> Tensor:
        """The loss of raw student embeddings (B, D), given the same pictures as the teacher's crops (B, H, W, 3)."""
        targets = torch.from_numpy(self.teacher.embed(crops.numpy())).to(embeddings)
        loss = embeddings.new_zeros(())
        self.last = {}
        if self.weight:
            projected = embeddings if self.projection is None else self.projection(embeddings)
            part = (1 - (normalize(projected, dim=1) * targets).sum(1)).mean()
            self.last["distill_cosine"] = 1 - part.detach()
            loss = loss + self.weight * part
        if self.relational:
            students = normalize(embeddings, dim=1)
            part = relational_distance(students, targets) + 2 * relational_angle(students, targets)
            self.last["distill_relational"] = part.detach()
            loss = loss + self.relational * part
        return loss


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """L_D = mean over i ≠ j of h(‖s_i − s_j‖/μ_s, ‖t_i − t_j‖/μ_t), μ the mean distance, h the Huber loss of δ = 1.

    Args:
        student: (B, D), with gradient.
        teacher: (B, D'), of any dimension.

    Source: arXiv 1904.05068v2, equations 4 to 6 and 8.
    """
    if len(student) < 2:
        return student.sum() * 0.0
    return smooth_l1_loss(_scaled_distances(student), _scaled_distances(teacher))


def _scaled_distances(rows: Tensor) -> Tensor:
    """The distances of all pairs i < j over their mean."""
    upper = torch.triu_indices(len(rows), len(rows), 1, device=rows.device)
    # The root is not differentiable at 0, where two pictures of a batch are the same.
    distances = (rows[upper[0]] - rows[upper[1]]).square().sum(1).clamp_min(1e-12).sqrt()
    return distances / distances.mean()


def relational_angle(student: Tensor, teacher: Tensor, *, group: int = GROUP) -> Tensor:
    """L_A = mean over triplets of h(cos ∠ s_i s_j s_k, cos ∠ t_i t_j t_k), the angle at j, h the Huber loss.

    Shapes: both (B, D) -> 0-d.

    Differs from the paper in that only triplets within runs of `group` pictures are compared, which bounds memory.

    Source: arXiv 1904.05068v2, equations 7 and 9.
    """
    if len(student) < 3:
        return student.sum() * 0.0
    losses = [
        smooth_l1_loss(_angles(s), _angles(t), reduction="sum") / max(1, len(s) * (len(s) - 1) * (len(s) - 2))
        for s, t in zip(student.split(group), teacher.split(group), strict=True)
        if len(s) > 2
    ]
    return torch.stack(losses).mean()


def _angles(rows: Tensor) -> Tensor:
    """cos of the angle at j between i and k, (B, B, B); 0 on both sides wherever two of the three are one picture."""
    edges = rows[None] - rows[:, None]
    edges = edges / edges.square().sum(2, keepdim=True).clamp_min(1e-12).sqrt()
    different = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    cosines = edges @ edges.transpose(1, 2)
    return cosines * (different[:, :, None] & different[:, None, :] & different[None])


def _mean_over_ranks(gradient: Tensor) -> Tensor:
    """The gradient every rank shares: the projection lives outside what DistributedDataParallel averages."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    return gradient
