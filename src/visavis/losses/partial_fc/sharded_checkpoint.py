"""Checkpoints that do not know how many ranks wrote them: class rows and their optimiser state, put together again."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visavis.distributed.collectives import RankGroup
from visavis.errors import ModelFormatError
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax


def full_state(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any] | None:
    """State of a module and its optimiser with every class row of every rank: what one process would have saved.

    All ranks must call it. The first rank gets {"module": …, "optimizer": …} (the second key if there is an
    optimiser), the others None. Other parameters are taken as they are on the first rank.
    """
    heads = _split_tensors(module)
    state: dict[str, Any] = {"module": dict(module.state_dict())}
    for name, (head, unit) in heads.items():
        state["module"][name] = _collect(state["module"][name], head, unit)
    if optimizer is not None:
        packed = optimizer.state_dict()
        packed["state"] = {index: dict(values) for index, values in packed["state"].items()}
        for index, parameter, head, unit in _split_parameters(module, optimizer):
            for key, value in packed["state"].get(index, {}).items():
                if _by_row(value, parameter):
                    packed["state"][index][key] = _collect(value, head, unit)
        state["optimizer"] = packed
    writes = all(head.ranks.rank == 0 for head, _ in heads.values()) if heads else RankGroup().rank == 0
    return state if writes else None


def load_full_state(module: nn.Module, optimizer: torch.optim.Optimizer | None, state: dict[str, Any]) -> None:
    """Take this rank's rows of what `full_state` gave on any number of ranks.

    Raises:
        ModelFormatError: the state belongs to another number of classes, dimension or set of parameters.
    """
    values = dict(state["module"])
    for name, (head, unit) in _split_tensors(module).items():
        if name in values:
            values[name] = _own(values[name], head, unit, name)
    try:
        module.load_state_dict(values)
        if optimizer is not None:
            packed = dict(state["optimizer"])
            packed["state"] = {index: dict(entries) for index, entries in packed["state"].items()}
            for index, parameter, head, unit in _split_parameters(module, optimizer):
                for key, value in packed["state"].get(index, {}).items():
                    if isinstance(value, Tensor) and value.ndim == parameter.ndim and value.ndim:
                        packed["state"][index][key] = _own(value, head, unit, f"optimiser state {key!r}")
            optimizer.load_state_dict(packed)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelFormatError(f"the checkpoint does not fit this model: {error}") from error


def _split_tensors(module: nn.Module) -> dict[str, tuple[MarginSoftmax, int]]:
    """Names in the state dict of tensors split over ranks, with their head and their rows per class."""
    found: dict[str, tuple[MarginSoftmax, int]] = {}
    for prefix, head in module.named_modules():
        if isinstance(head, MarginSoftmax):
            dot = prefix + "." if prefix else ""
            found[dot + "weight"] = (head, head.sub_centres)
            if head.bias is not None:
                found[dot + "bias"] = (head, head.sub_centres)
            if head.centres is not None:
                found[dot + "centres.means"] = (head, 1)
    return found


def _split_parameters(
    module: nn.Module, optimizer: torch.optim.Optimizer
) -> list[tuple[int, Tensor, MarginSoftmax, int]]:
    """The same for an optimiser: index in its state dict, parameter, head, rows per class."""
    named = dict(module.named_parameters())
    heads = {id(named[name]): where for name, where in _split_tensors(module).items() if name in named}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [(i, p, *heads[id(p)]) for i, p in enumerate(parameters) if id(p) in heads]


def _by_row(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[:1] == parameter.shape[:1]


def _bounds(head: MarginSoftmax, unit: int) -> list[int]:
    return [head.num_classes * rank // head.ranks.size * unit for rank in range(head.ranks.size + 1)]


def _collect(value: Tensor, head: MarginSoftmax, unit: int) -> Tensor:
    """The rows of all ranks on the first one; elsewhere the rows that were sent."""
    ranks = head.ranks
    if ranks.size == 1:
        return value
    group = ranks.group

    def peer(rank: int) -> int:
        return dist.get_global_rank(group, rank) if group else rank

    if ranks.rank:
        dist.send(value.contiguous(), peer(0), group=group)
        return value
    bounds = _bounds(head, unit)
    whole = torch.empty(bounds[-1], *value.shape[1:], dtype=value.dtype, device=value.device)
    whole[: bounds[1]] = value
    for rank in range(1, ranks.size):
        part = whole[bounds[rank] : bounds[rank + 1]]
        dist.recv(part, peer(rank), group=group)
    return whole


def _own(value: Tensor, head: MarginSoftmax, unit: int, name: str) -> Tensor:
    if len(value) != head.num_classes * unit:
        raise ModelFormatError(
            f"{name}: expected {head.num_classes * unit} rows ({head.num_classes} classes), got {len(value)}"
        )
    return value[head.start * unit : head.stop * unit]
