"""Networks from normalized crops (N, 3, H, W) to raw features (N, D). A new one is a file and a line in BACKBONES."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from visavis.backbones.deepid import DeepID
from visavis.backbones.iresnet import IResNet
from visavis.backbones.massface import MassFaceNet
from visavis.backbones.mbf import ArcFaceMobileFaceNet
from visavis.backbones.mobilefacenet import MobileFaceNet
from visavis.backbones.small import Small
from visavis.backbones.spherenet import SphereNet
from visavis.backbones.vit import VisionTransformer
from visavis.errors import RecipeError, unknown_name

Builder = Callable[..., nn.Module]

BACKBONES: dict[str, Builder] = {
    "small": Small,
    "mobilefacenet": MobileFaceNet,
    "massface": MassFaceNet,
    "mbf": ArcFaceMobileFaceNet,
    "mbf_large": partial(ArcFaceMobileFaceNet, scale=4, blocks=(2, 8, 12, 4)),
    "iresnet18": partial(IResNet, 18),
    "iresnet34": partial(IResNet, 34),
    "iresnet50": partial(IResNet, 50),
    "iresnet100": partial(IResNet, 100),
    "iresnet200": partial(IResNet, 200),
    "vit_tiny": partial(VisionTransformer, "tiny"),
    "vit_small": partial(VisionTransformer, "small"),
    "vit_base": partial(VisionTransformer, "base"),
    "vit_large": partial(VisionTransformer, "large"),
    "sphere20": partial(SphereNet, 20),
    "sphere36": partial(SphereNet, 36),
    "sphere64": partial(SphereNet, 64),
    "deepid": DeepID,
}


def build_backbone(name: str, /, *, size: tuple[int, int] = (112, 112), dim: int = 512, **args: Any) -> nn.Module:
    """Build a network by name.

    Args:
        name: a key of `BACKBONES`, or `module:callable` of your own: an `nn.Module` class, or a function annotated to
            return one. It is called with `size` and `dim` and must map (N, 3, H, W) to (N, D).
        size: (height, width) of the crops in pixels.
        dim: length D of the embedding.
        args: what the builder takes besides.

    Raises:
        RecipeError: unknown name or argument, or a callable that is no network's builder.
    """
    builder = BACKBONES[name] if name in BACKBONES else _import_builder(name)
    known = arguments_of(builder)
    for key in args:
        if known is not None and key not in known:
            raise RecipeError(unknown_name(f"argument of backbone {name}", key, [*known, "size", "dim"]))
    try:
        network = builder(size=(int(size[0]), int(size[1])), dim=int(dim), **args)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RecipeError(f"backbone {name} cannot be built with size={size}, dim={dim}, {args}: {reason}") from error
    if not isinstance(network, nn.Module):
        raise RecipeError(f"backbone {name} gave a {type(network).__name__}; expected a torch.nn.Module")
    if not hasattr(network, "dim"):
        network.dim = int(dim)  # type: ignore[assignment]
    return network


def arguments_of(builder: Builder) -> list[str] | None:
    """The names a builder takes besides `size` and `dim`; None when it takes any."""
    parameters = inspect.signature(builder).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.name not in ("size", "dim")]


def _import_builder(name: str) -> Builder:
    """Import `module:callable`; only what is declared to build a network is ever called, since a card may name it."""
    module_name, _, attribute = name.partition(":")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", module_name) or not attribute.isidentifier():
        raise RecipeError(unknown_name("backbone", name, BACKBONES) + ", or module:callable of your own")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # what a module does when it is imported is its author's affair
        raise RecipeError(
            f"backbone {name}: cannot import {module_name} ({type(error).__name__}: {error}); where it is not found, "
            "put its folder on the path: PYTHONPATH=. visavis ..."
        ) from error
    if not hasattr(module, attribute):
        raise RecipeError(f"backbone {name}: module {module_name} has no {attribute!r}")
    builder = getattr(module, attribute)
    if not _builds_networks(builder):
        raise RecipeError(
            f"backbone {name} must be a torch.nn.Module class or a function annotated '-> nn.Module'; got {builder!r}"
        )
    return builder


def _builds_networks(builder: object) -> bool:
    if inspect.isclass(builder):
        return issubclass(builder, nn.Module)
    try:
        made = typing.get_type_hints(builder).get("return")  # type: ignore[arg-type]
    except (TypeError, NameError, AttributeError):
        return False
    return inspect.isclass(made) and issubclass(made, nn.Module)
