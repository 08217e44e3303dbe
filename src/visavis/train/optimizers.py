"""Optimizers by name, parameter groups, and an exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visavis.distributed.collectives import RankGroup
from visavis.errors import RecipeError, unknown_name
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sparse_sgd import SparseSGD
from visavis.train.layers import layers
from visavis.train.recipe import OptimizerRecipe

Groups = list[dict[str, Any]]
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)  # pyright: ignore[reportPrivateUsage]


def _sgd(groups: Groups, r: OptimizerRecipe, fused: bool) -> torch.optim.Optimizer:
    return SparseSGD(groups, lr=r.lr, momentum=r.momentum, nesterov=r.nesterov, fused=fused)


def _adam(groups: Groups, r: OptimizerRecipe, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=r.lr, betas=(r.betas[0], r.betas[1]), eps=r.eps, fused=fused)


def _adamw(groups: Groups, r: OptimizerRecipe, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=r.lr, betas=(r.betas[0], r.betas[1]), eps=r.eps, fused=fused)


def _adagrad(groups: Groups, r: OptimizerRecipe, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(groups, lr=r.lr, eps=r.eps)


def _adadelta(groups: Groups, r: OptimizerRecipe, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adadelta(groups, lr=r.lr, rho=r.rho, eps=r.eps)


def _rmsprop(groups: Groups, r: OptimizerRecipe, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, lr=r.lr, alpha=r.rho, eps=r.eps, momentum=r.momentum)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerRecipe, bool], torch.optim.Optimizer]] = {
    "adadelta": _adadelta,
    "adagrad": _adagrad,
    "adam": _adam,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}


def build_optimizer(
    network: nn.Module, others: Iterable[nn.Module], recipe: OptimizerRecipe, *, lr: float
) -> torch.optim.Optimizer:
    """The optimizer over a network and the modules beside it (head, centers), fused where the device has it.

    Each group keeps its `base_lr`; the loop sets lr = base_lr · schedule(step). With `decay_norms_and_biases` off,
    parameters of one dimension have no weight decay (but PReLU's slopes with `decay_prelu`); with `decay_norms` off,
    those of norms have none.

    Raises:
        RecipeError: unknown name, or a setting the optimizer refuses.
    """
    if recipe.name not in OPTIMIZERS:
        raise RecipeError(unknown_name("optimizer", recipe.name, OPTIMIZERS))
    groups = _groups(network, recipe, lr, decay=recipe.layer_decay)
    for module in others:
        groups += _groups(module, recipe, lr * recipe.head_lr_scale)
    parameters = [parameter for group in groups for parameter in group["params"]]
    kinds = {
        "split" if isinstance(p, DTensor) else p.device.type for p in parameters
    }  # fused kernels know no split ones
    try:
        optimizer = OPTIMIZERS[recipe.name](groups, recipe, kinds <= {"cpu", "cuda"})
    except (ValueError, IndexError) as error:
        raise RecipeError(f"optimizer {recipe.name}: {error}") from error
    return optimizer


def _groups(module: nn.Module, recipe: OptimizerRecipe, lr: float, *, decay: float = 1.0) -> Groups:
    """Groups of one learning rate and one weight decay, in the module's order.

    A `decay` d < 1 gives the parameters of layer i of n the rate lr · d^(n − 1 − i); see `visavis.train.layers`.
    """
    behind = {name: i for i, layer in enumerate(reversed(layers(module))) for name in layer} if decay != 1 else {}
    norms = () if recipe.decay_norms else (m for m in module.modules() if isinstance(m, NORMS))
    slopes = {id(m.weight) for m in module.modules() if isinstance(m, nn.PReLU) and recipe.decay_prelu}
    exempt = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = lr * decay ** behind.get(name, 0)
        wide = recipe.decay_norms_and_biases or parameter.ndim > 1 or id(parameter) in slopes
        decays = wide and id(parameter) not in exempt
        groups.setdefault((rate, recipe.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": weight_decay}
        for (rate, weight_decay), parameters in groups.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to base_lr · factor; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def clip_gradients(
    network: nn.Module, objective: nn.Module, limit: float, *, stop: bool = False, backbone_alone: bool = False
) -> tuple[Tensor, bool]:
    """Scale all gradients by min(1, `limit` / ‖g‖), ‖g‖ over the network and the class centers of every rank.

    Shapes: the norm, 0-d.

    With `backbone_alone` ‖g‖ is over the network, and its gradients alone are scaled (arcface_torch).
    The same trip over the ranks tells whether any of them was asked to `stop`. A limit of 0 only measures.

    Returns:
        The norm of all before clipping (NaN or infinite if any gradient is), the same on every rank; whether to stop.
    """
    ranks = RankGroup()
    split = {id(p) for m in objective.modules() if isinstance(m, MarginSoftmax) for p in m.parameters(recurse=False)}
    parts = [[p for p in m.parameters() if p.grad is not None] for m in (network, objective)]
    everything = [p for part in parts for p in part]
    split |= {id(p) for p in everything if isinstance(p, DTensor)}
    shared = [[p.grad for p in part if p.grad is not None and id(p) not in split] for part in parts]
    own = [[_local(p.grad) for p in part if p.grad is not None and id(p) in split] for part in parts]
    device = everything[0].device if everything else torch.device("cpu")
    sums = ranks.sum(torch.stack([*(_square(g, device) for g in own), torch.tensor(float(stop), device=device)]))
    squares = [_square(gradients, device) + sums[i] for i, gradients in enumerate(shared)]
    norm = (squares[0] + squares[1]).sqrt()
    if limit:
        factor = (limit / (squares[0].sqrt() if backbone_alone else norm)).clamp(max=1.0)
        for gradient in (*shared[0], *own[0], *(() if backbone_alone else (*shared[1], *own[1]))):
            gradient.mul_(factor)
    return norm, bool(sums[2] > 0)


def _local(gradient: Tensor) -> Tensor:
    """The part of a gradient that this rank has, where FSDP2 splits it."""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _square(gradients: list[Tensor], device: torch.device) -> Tensor:
    """Σ g² over all of them."""
    total = torch.zeros((), device=device)
    for gradient in gradients:
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        total += torch.linalg.vector_norm(values.detach()).square()
    return total


class ExponentialMovingAverage:
    """w̄ ← d·w̄ + (1 − d)·w over parameters and batch norm statistics, d rising as min(decay, (1 + t)/(10 + t))."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards the network's values; integers (batch counters) are copied.

        Values that are not finite (a step too long) would stay in the average for good: then nothing is taken.
        """
        current = network.state_dict()
        floats = [name for name, value in self.values.items() if value.is_floating_point()]
        sizes = torch._foreach_norm([current[name] for name in floats], float("inf"))  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
        if not torch.stack(sizes).isfinite().all():
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
            [self.values[name] for name in floats], [current[name].detach() for name in floats], 1 - decay
        )
        for name in self.values.keys() - set(floats):
            self.values[name].copy_(current[name])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.updates = state["updates"]
        for name, value in self.values.items():
            kept = state["values"][name]
            value.copy_(kept if isinstance(kept, Tensor) else kept.whole())
