"""The last touch to a network: embeddings about their mean, and what varies within people made small."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visavis import seeding
from visavis.data.augment.augmentation import Augmentation
from visavis.errors import RecipeError
from visavis.metrics.similarity import unit_rows
from visavis.models.torch import TorchEmbedder
from visavis.train.dataset import Advance, ImageDataset
from visavis.types import FloatArray
from visavis.vision.preprocessing import PreprocessSpec, cut_frame

log = logging.getLogger(__name__)
_COPIES, _MOST = 4, 40_000  # changed copies of each picture, and embeddings in all
FEWEST_PEOPLE = 300  # the mean of fewer is theirs and not everybody's: measured in docs/finetuning.md
_TOLERANCE = 1e-6  # of the embedding's length


def whiten(
    network: nn.Module,
    spec: PreprocessSpec,
    images: ImageDataset,
    augmentation: Augmentation,
    *,
    ridge: float,
    seed: int,
    device: torch.device,
    advance: Advance | None = None,
) -> nn.Module:
    """A copy of the network with x ↦ P · (x − m) folded into its last linear layer: within-class covariance normalized.

        u = unit(f(augmented picture)) · mean ‖f‖,   m = mean u,   S = mean over pictures of (u − m_y)(u − m_y)ᵀ
        P = (S + r · tr(S)/D · I)^(−1/2)

    The mean that all embeddings share makes every two people alike; directions in which pictures of one person differ
    say least about who it is. Four augmented copies of each training picture (40,000 embeddings at most) are looked
    at, or those a network has learned by heart would not differ at all. r = 0 is the published rule, a large r only
    takes away the mean. Of fewer than 300 people that mean is their own: nothing is done then, and the log says so.

    Args:
        network: in evaluation mode or not; it is left as it is.
        spec: its input.
        images: those it was trained on.
        augmentation: as in training.
        ridge: r, positive.
        seed: of the augmentation and of the choice among many pictures.
        device: where to embed.
        advance: told how many embeddings there are, of how many.

    Raises:
        RecipeError: the network does not end in a linear layer, with or without a batch norm.

    Source: Hatch, Kajarekar, Stolcke, "Within-class covariance normalization for SVM-based speaker recognition",
    Interspeech 2006, section 3; the ridge is ours.
    """
    network = copy.deepcopy(network).eval()
    people = len(np.unique(images.labels))
    if people < FEWEST_PEOPLE:
        log.warning("not whitened: %d people are too few to tell what all share (%d are wanted)", people, FEWEST_PEOPLE)
        return network
    features, labels = _features(network, spec, images, augmentation, seed=seed, device=device, advance=advance)
    matrix, mean = (torch.from_numpy(x) for x in within_class_whitening(features, labels, ridge=ridge))
    network = _folded(network, spec, matrix, mean)
    log.info("whitened by %d embeddings of %d people, ridge %g", len(labels), len(np.unique(labels)), ridge)
    return network.float().to(device)


def check_can_whiten(network: nn.Module, spec: PreprocessSpec, dim: int) -> None:
    """Refuse before training what `whiten` would refuse after it.

    Raises:
        RecipeError: the network does not end in a linear layer of `dim` outputs, with or without a batch norm.
    """
    scale, ones = 2 * torch.eye(dim, dtype=torch.float64), torch.ones(dim, dtype=torch.float64)
    _folded(copy.deepcopy(network).eval(), spec, scale, ones)


def within_class_whitening(features: FloatArray, labels: np.ndarray, *, ridge: float) -> tuple[FloatArray, FloatArray]:
    """P (D, D) and m (D,) of `whiten`, from features (N, D) and labels (N,); float64."""
    features = features.astype(np.float64)
    u = unit_rows(features) * np.linalg.norm(features, axis=1).mean()
    _, of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), u.shape[1]))
    np.add.at(means, of, u)
    within = u - (means / counts[:, None])[of]
    values, vectors = np.linalg.eigh(within.T @ within / len(u))
    scale = 1 / np.sqrt(np.maximum(values, 0) + ridge * values.mean())
    return (vectors * scale) @ vectors.T, u.mean(0)


def _features(
    network: nn.Module,
    spec: PreprocessSpec,
    images: ImageDataset,
    augmentation: Augmentation,
    *,
    seed: int,
    device: torch.device,
    advance: Advance | None,
) -> tuple[FloatArray, np.ndarray]:
    rng = seeding.generator(seed, "whitening")
    chosen = np.sort(rng.permutation(len(images))[: _MOST // _COPIES])
    embedder = TorchEmbedder(network, replace(spec, flip="none"), device=device, batch_size=128)
    parts = []
    log.info("whitening: %d augmented copies of each of %d pictures are embedded", _COPIES, len(chosen))
    for start in range(0, len(chosen), 256):
        crops = cut_frame(images.take(chosen[start : start + 256]), spec)
        parts += [embedder.features(augmentation(crops, rng, size=spec.size)) for _ in range(_COPIES)]
        if advance:
            advance(_COPIES * (start + len(crops)), _COPIES * len(chosen))
    labels = [np.tile(images.labels[chosen[s : s + 256]], _COPIES) for s in range(0, len(chosen), 256)]
    return np.concatenate(parts), np.concatenate(labels)


@torch.no_grad()
def _folded(network: nn.Module, spec: PreprocessSpec, matrix: Tensor, mean: Tensor) -> nn.Module:
    """The network, in float64 on the CPU, with x ↦ `matrix` · (x − `mean`) in its last layer; tried on noise."""
    probe = torch.randn(8, 3, *spec.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = network.cpu().double()  # no rounding stands between the folded network and the rule
    expected = (network(probe) - mean) @ matrix.T
    _fold(network, matrix, mean)
    if (network(probe) - expected).norm() > _TOLERANCE * expected.norm():
        raise _no_place(network)
    return network


def _fold(network: nn.Module, matrix: Tensor, mean: Tensor) -> None:
    """Make the network's last layer give `matrix` · (x − `mean`) where it gave x."""
    leaves = [m for m in network.modules() if not list(m.children()) and m.state_dict()]
    norm = leaves[-1] if isinstance(leaves[-1], _BatchNorm) else None
    linear = leaves[-2] if norm is not None and len(leaves) > 1 else leaves[-1]
    if not isinstance(linear, nn.Linear | nn.Conv2d) or linear.weight.shape[0] != len(mean):
        raise _no_place(network)
    own = torch.zeros_like(mean) if linear.bias is None else linear.bias
    if norm is None:
        if linear.bias is None:
            raise _no_place(network)
        scale, shift, bias = torch.ones_like(mean), own, linear.bias
    else:
        if norm.weight is None or norm.bias is None or norm.running_mean is None or norm.running_var is None:
            raise _no_place(network)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift, bias = norm.bias + scale * (own - norm.running_mean), norm.bias
        norm.weight.fill_(1)  # from now on it takes the layer's own bias away and adds its own
        norm.running_mean.copy_(own)
        norm.running_var.fill_(1 - norm.eps)
    constant = matrix @ (shift - mean)
    linear.weight.copy_((matrix @ (scale[:, None] * linear.weight.flatten(1))).view_as(linear.weight))
    bias.copy_(constant)


def _no_place(network: nn.Module) -> RecipeError:
    return RecipeError(
        f"loop.wccn_ridge wants a network that ends in a linear layer, with or without a batch norm; "
        f"{type(network).__name__} ends otherwise: set loop.wccn_ridge to 0"
    )
