"""A network built as a card says, but no larger than the weights beside it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from visavis.backbones import BACKBONES, build_backbone
from visavis.errors import ModelFormatError, RecipeError
from visavis.models.card import ModelCard
from visavis.models.trust import check_trusted


class _TooMany(Exception):
    """More modules than the weights can fill."""


def build_for(card: ModelCard, shapes: Mapping[str, tuple[int, ...]], *, name: str) -> nn.Module:
    """The network of a card whose weights have these shapes.

    A network of ours is first built without memory and compared with the weights, and given up once it has more parts
    than they could fill: a card of a few bytes may ask for more than any machine has. A backbone of the user's own,
    which they vouch for, is built as it is.

    Raises:
        ModelFormatError: code nobody vouched for, arguments the backbone does not take, or weights of other shapes.
    """
    check_trusted(card.backbone, name)
    arguments = dict(card.backbone_args)
    if reserved := {"size", "dim"} & set(arguments):
        raise ModelFormatError(f"{name}: 'backbone_args' may not hold {', '.join(sorted(reserved))}; the card says it")

    def build() -> nn.Module:
        return build_backbone(card.backbone, size=card.preprocess.size, dim=card.embedding_dim, **arguments)

    try:
        if card.backbone in BACKBONES:
            with _at_most(1000 + 10 * len(shapes)), torch.device("meta"), _Unfilled():
                problem = difference(build(), shapes)
            if problem:
                raise ModelFormatError(f"{name}: the weights do not fit backbone {card.backbone}: {problem}")
        return build()
    except _TooMany as error:
        raise ModelFormatError(
            f"{name}: backbone {card.backbone} with {arguments} has more than {error} parts, the weights only "
            f"{len(shapes)} tensors"
        ) from error
    except RecipeError as error:
        raise ModelFormatError(f"{name}: {error}") from error


class _Unfilled(TorchFunctionMode):
    """Leaves tensors without memory as they are: filling them does nothing, but PyTorch imports 900 modules for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls all but in-place functions of such tensors."""
        named: dict[str, Any] = kwargs or {}
        given: object = args[0] if args else named.get("tensor")
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and isinstance(given, torch.Tensor) and given.is_meta:
            return given
        return func(*args, **named)


@contextmanager
def _at_most(modules: int) -> Generator[None]:
    left = modules

    def count(parent: nn.Module, key: str, child: nn.Module | None) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooMany(str(modules))

    handle = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def difference(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], *, limit: int = 8) -> str:
    """Say which keys are missing, unknown or of another shape; an empty text when `shapes` fit strictly."""
    wanted: dict[str, Any] = network.state_dict()
    said = (
        ("missing", [key for key in wanted if key not in shapes]),
        ("unknown", [key for key in shapes if key not in wanted]),
        (
            "of another shape",
            [
                f"{key} {tuple(shapes[key])} for {tuple(wanted[key].shape)}"
                for key in wanted
                if key in shapes and tuple(shapes[key]) != tuple(wanted[key].shape)
            ],
        ),
    )
    return "; ".join(
        f"{len(keys)} {what}: {', '.join(keys[:limit])}{', ...' if len(keys) > limit else ''}"
        for what, keys in said
        if keys
    )
