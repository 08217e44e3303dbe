"""Backbones too large for one device: weights, gradients and optimiser state split over the ranks (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from visavis.distributed.device import PRECISIONS
from visavis.distributed.launch import World
from visavis.errors import ModelFormatError


def shard_weights(network: nn.Module, world: World, *, precision: str = "fp32", smallest: int = 100_000) -> nn.Module:
    """Split a network over the ranks, in place; does nothing for one process.

    Each block (a child of a ModuleList or Sequential with at least `smallest` parameters) is gathered just before it
    computes and let go after it; the rest belongs to the root. Gradients are averaged over the ranks as
    DistributedDataParallel does, so the heads' contract holds. Build the optimiser afterwards: its state is split with
    the weights. Running statistics of batch norms stay each rank's own.

    Args:
        network: on its device, the same values on every rank.
        world: who shares.
        precision: of the gathered weights: fp32, bf16 or fp16; the split ones stay in float32.
        smallest: parameters a block must have to be split by itself.
    """
    if world.size == 1:
        return network
    mesh = init_device_mesh(world.device.type, (world.size,))
    kind = PRECISIONS[precision]
    policy = MixedPrecisionPolicy(
        param_dtype=None if kind == torch.float32 else kind,
        reduce_dtype=None if kind == torch.float32 else torch.float32,
    )
    for module in list(network.modules()):
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for block in module:
                if sum(p.numel() for p in block.parameters()) >= smallest:
                    fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    return network


def whole_state(network: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Weights and optimiser state as one process would have them, on the CPU; all ranks must call it.

    {"network": state dict, "optimizer": state dict (if there is an optimiser)}, with ordinary tensors: it loads into a
    network that is not split, and into one split over any number of ranks.
    """
    state: dict[str, Any] = {"network": {name: _whole(value) for name, value in network.state_dict().items()}}
    if optimizer is not None:
        packed = optimizer.state_dict()
        entries = {i: {key: _whole(value) for key, value in entry.items()} for i, entry in packed["state"].items()}
        state["optimizer"] = {**packed, "state": entries}
    return state


def load_whole_state(
    network: nn.Module, state: Mapping[str, Any], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Take this rank's part of what `whole_state` gave.

    Raises:
        ModelFormatError: names or shapes differ.
    """
    own = network.state_dict()
    if own.keys() != state["network"].keys():
        strange = sorted(own.keys() ^ state["network"].keys())
        raise ModelFormatError(f"the checkpoint does not fit this network: {', '.join(strange[:5])}")
    for name, value in own.items():
        if value.shape != state["network"][name].shape:
            shapes = f"{tuple(value.shape)}, got {tuple(state['network'][name].shape)}"
            raise ModelFormatError(f"the checkpoint does not fit this network: {name} has shape {shapes}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(_like(state["network"][name], value))
    if optimizer is None:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries = {
        i: {key: _like(value, parameters[i]) for key, value in entry.items()}
        for i, entry in state["optimizer"]["state"].items()
    }
    optimizer.load_state_dict({**state["optimizer"], "state": entries})


def whole_optimizer(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimiser whose state dict has whole tensors, whatever is split; itself where nothing is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(isinstance(parameter, DTensor) for parameter in parameters):
        return optimizer
    return cast(torch.optim.Optimizer, _WholeOptimizer(optimizer))


class _WholeOptimizer:
    """What saving and loading need of an optimiser; all ranks must ask for the state."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups

    def state_dict(self) -> dict[str, Any]:
        """The state, gathered."""
        packed = self.optimizer.state_dict()
        entries = {
            i: {key: value.full_tensor().cpu() if isinstance(value, DTensor) else value for key, value in entry.items()}
            for i, entry in packed["state"].items()
        }
        return {**packed, "state": entries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take this rank's part of what `state_dict` gave."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        entries = {
            i: {key: _like(value, parameters[i]) for key, value in entry.items()} for i, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": entries})


def _whole(value: Any) -> Any:
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value


def _like(value: Any, model: Tensor) -> Any:
    """`value` split as `model` is, if it has its shape (a step counter has not)."""
    if isinstance(model, DTensor) and isinstance(value, Tensor) and value.shape == model.shape:
        return distribute_tensor(value.to(model.device), model.device_mesh, model.placements)
    return value
