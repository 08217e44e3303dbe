"""State that does not know how many ranks hold it: tensors split over ranks say which rows of the whole they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from visavis.errors import ModelFormatError
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax, present_name


@dataclass(frozen=True)
class RowShard:
    """The rows `start`, `start` + 1, ... of a tensor of `total` rows: what one rank has of it."""

    tensor: Tensor
    start: int
    total: int


class Stored(Protocol):
    """A whole tensor somewhere (a file), read as far as it is asked for."""

    @property
    def shape(self) -> Sequence[int]:
        """Its shape."""
        ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Its rows `start` to `stop`; (stop − start, ...)."""
        ...

    def whole(self) -> Tensor:
        """All of it; (R, ...)."""
        ...


Value = Tensor | RowShard
Entries = Mapping[str, Mapping[str, Any]]


def module_state(module: nn.Module) -> dict[str, Value]:
    """A module's state dict; class rows and weights split over ranks (FSDP2) are this rank's `RowShard`.

    Nothing is sent: every rank has its own part, and those of all ranks together are the state one process would have.
    """
    split = _split_tensors(module)
    return {name: _value(value, split.get(name)) for name, value in module.state_dict().items()}


def load_module_state(module: nn.Module, state: Mapping[str, Tensor | Stored]) -> None:
    """Take this rank's part of whole tensors that any number of ranks has left.

    Shapes: whole tensors (R, ...).

    Raises:
        ModelFormatError: names or shapes differ.
    """
    own, split = module.state_dict(), _split_tensors(module)
    state = {present_name(key): value for key, value in state.items()}
    if own.keys() != state.keys():
        strange = ", ".join(sorted(own.keys() ^ state.keys())[:5])
        raise ModelFormatError(f"the checkpoint does not fit this model: it has not the same {strange}")
    with torch.no_grad():
        for name, value in own.items():
            mine = value.to_local() if isinstance(value, DTensor) else value
            mine.copy_(_part(name, state[name], mine, split.get(name)))


def optimizer_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, dict[str, Any]]:
    """What an optimizer keeps of each parameter, by its name in `module`; of split ones this rank's rows."""
    packed, split = optimizer.state_dict()["state"], _split_tensors(module)
    return {
        name: {key: _value(value, split.get(name), like=parameter) for key, value in packed[index].items()}
        for index, (name, parameter) in enumerate(_named(optimizer, module))
        if index in packed
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, module: nn.Module, state: Entries | Mapping[int, Mapping[str, Any]]
) -> None:
    """Take this rank's part of what any number of ranks has left; rates and decays stay the optimizer's own.

    Entries may be named by the parameter's place in the optimizer, as torch does, instead of its name.

    Raises:
        ModelFormatError: a parameter that is not here, or another shape.
    """
    split, named = _split_tensors(module), _named(optimizer, module)
    places = {name: index for index, (name, _) in enumerate(named)} | {i: i for i in range(len(named))}
    packed: dict[int, dict[str, Any]] = {}
    for key, entries in state.items():
        if key not in places:
            raise ModelFormatError(f"the checkpoint does not fit this model: its optimizer knows a parameter {key!r}")
        name, parameter = named[places[key]]
        packed[places[key]] = {
            what: _entry(f"optimizer state {what!r} of {name}", value, parameter, split.get(name))
            for what, value in entries.items()
        }
    try:
        optimizer.load_state_dict({"state": packed, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelFormatError(f"the checkpoint does not fit this optimizer: {error}") from error


def join_rows(parts: Sequence[Any]) -> Any:
    """One state from those of all ranks, in any order: rows are put together, the rest is the first rank's."""
    first = parts[0]
    if isinstance(first, RowShard):
        whole = first.tensor.new_empty((first.total, *first.tensor.shape[1:]))
        for part in parts:
            whole[part.start : part.start + len(part.tensor)] = part.tensor
        return whole
    if isinstance(first, Mapping):
        return {key: join_rows([part[key] for part in parts]) for key in first}
    return first


def rows_per_class(head: MarginSoftmax) -> dict[str, int]:
    """The tensors of a head's state dict that have rows of each class, and how many rows a class has."""
    units = {"weight": head.sub_centers}
    if head.bias is not None:
        units["bias"] = head.sub_centers
    if head.centers is not None:
        units["centers.means"] = 1
    return units


def _split_tensors(module: nn.Module) -> dict[str, tuple[int, int]]:
    """First row and number of rows in all, of tensors in the state dict that are split over ranks."""
    found: dict[str, tuple[int, int]] = {}
    for prefix, head in module.named_modules():
        if isinstance(head, MarginSoftmax) and head.ranks.size > 1:
            dot = prefix + "." if prefix else ""
            units = rows_per_class(head)
            found |= {dot + name: (head.start * unit, head.num_classes * unit) for name, unit in units.items()}
    return found | {name: _bounds(value) for name, value in module.state_dict().items() if isinstance(value, DTensor)}


def _bounds(value: DTensor) -> tuple[int, int]:
    """FSDP2 cuts rows as torch.chunk does: equal parts, rounded up, the last ones shorter."""
    each = -(-value.shape[0] // value.device_mesh.size())
    return min(value.shape[0], dist.get_rank() * each), value.shape[0]


def _named(optimizer: torch.optim.Optimizer, module: nn.Module) -> list[tuple[str, Tensor]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [(names[id(p)], p) for group in optimizer.param_groups for p in group["params"]]


def _value(value: Any, split: tuple[int, int] | None, like: Tensor | None = None) -> Any:
    """A value as a checkpoint takes it; an optimizer's is split where it is `like` its split parameter."""
    if isinstance(value, DTensor):
        return RowShard(value.to_local().detach(), *_bounds(value))
    if not isinstance(value, Tensor):
        return value
    if split is None or (like is not None and value.shape != like.shape):
        return value.detach()
    return RowShard(value.detach(), *split)


def _part(name: str, value: Tensor | Stored, mine: Tensor, split: tuple[int, int] | None) -> Tensor:
    """Of a whole `value`, what belongs into `mine`."""
    expected = tuple(mine.shape) if split is None else (split[1], *mine.shape[1:])
    if tuple(value.shape) != expected:
        raise ModelFormatError(
            f"the checkpoint does not fit this model: {name} has shape {expected}, got {tuple(value.shape)}"
        )
    if split is None:
        return value if isinstance(value, Tensor) else value.whole()
    start, stop = split[0], split[0] + len(mine)
    return value[start:stop] if isinstance(value, Tensor) else value.rows(start, stop)


def _entry(name: str, value: Any, parameter: Tensor, split: tuple[int, int] | None) -> Any:
    """An optimizer's value of whole tensors, as this rank's parameter needs it."""
    if not hasattr(value, "shape"):
        return value
    whole = (split[1], *parameter.shape[1:]) if split else tuple(parameter.shape)
    if len(value.shape) == 0 or tuple(value.shape) != whole:
        if len(value.shape) == parameter.ndim and parameter.ndim:
            raise ModelFormatError(
                f"the checkpoint does not fit this model: {name} has shape {whole}, got {tuple(value.shape)}"
            )
        return value.clone() if isinstance(value, Tensor) else value.whole()
    mine = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    local = torch.empty_like(mine.detach())  # in the parameter's memory format, which fused kernels take for granted
    local.copy_(_part(name, value, mine, split))
    if not isinstance(parameter, DTensor):
        return local
    return DTensor.from_local(
        local, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
