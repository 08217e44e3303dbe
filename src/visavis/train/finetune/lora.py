"""Low-rank adapters: a frozen weight plus a product of two thin matrices, merged into plain weights when saved."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from visavis.errors import RecipeError


class LowRank(nn.Module):
    """W = W₀ + (α / r)·B·A with A (r, columns), B (rows, r); B starts at 0, so training starts at W₀.

    A starts uniform in ±√(1 / columns) (the paper: Gaussian). A 1 × 1 convolution's weight is taken as the matrix
    (out, in) that it is. Always computed in the weight's own precision.

    Args:
        weight: W₀, of a linear or an ungrouped 1 × 1 convolution layer.
        rank: r ≥ 1; no more than the matrix has rows or columns is used.
        alpha: α > 0.

    Source: Hu et al., arXiv 2106.09685v2, section 4.1.
    """

    def __init__(self, weight: Tensor, *, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, columns, device=weight.device, dtype=weight.dtype))
        self.b = nn.Parameter(torch.zeros(rows, rank, device=weight.device, dtype=weight.dtype))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight, in the shape of `weight`; (R, ...) -> (R, ...)."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.b @ self.a).view_as(weight) * self.scale


def adaptable(network: nn.Module) -> list[str]:
    """The names of the layers an adapter fits: linear, and 1 × 1 convolution without groups."""
    return [name for name, module in network.named_modules() if _is_matrix(module)]


def _is_matrix(module: nn.Module) -> bool:
    if parametrize.is_parametrized(module):
        return False
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def add_adapters(network: nn.Module, names: Collection[str], *, rank: int, alpha: float) -> None:
    """Put a `LowRank` on the weight of each named layer; the weights themselves stop learning.

    Raises:
        RecipeError: rank or α out of range, or nothing to adapt.
    """
    if rank < 1 or not alpha > 0:
        raise RecipeError(f"finetune.lora wants a rank of at least 1 and a positive alpha, got {rank} and {alpha:g}")
    if not names:
        raise RecipeError("finetune.lora found no linear or 1×1 convolution layer to adapt; see finetune.lora.targets")
    for name in names:
        module = network.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, nn.Parameter)
        weight.requires_grad_(False)
        parametrize.register_parametrization(module, "weight", LowRank(weight, rank=rank, alpha=alpha))


def merged(network: nn.Module) -> nn.Module:
    """The network with its adapters added into plain weights: a copy, or the network itself when it has none.

    The merged weight is the very tensor the adapted layer computes with, so both give the same embeddings.
    """
    if not any(isinstance(module, LowRank) for module in network.modules()):
        return network
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        parts = getattr(module, "parametrizations", {})
        if "weight" in parts and any(isinstance(part, LowRank) for part in parts["weight"]):
            weight = module.get_parameter("parametrizations.weight.original").detach()
            for part in parts["weight"]:
                weight = part(weight)
            # Not remove_parametrizations: the copy shares its made-up class with the original, which would lose it too.
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.register_parameter("weight", nn.Parameter(weight.detach()))
    return plain
