"""Heads: what turns features and labels into a loss. Adding one = one file and one line in HEADS."""

from __future__ import annotations

import inspect
from typing import Any

from visavis.errors import RecipeError, unknown_name
from visavis.heads.arcface import ArcFace
from visavis.heads.cosface import CosFace
from visavis.heads.head import Head
from visavis.heads.softmax import Softmax

HEADS: dict[str, type[Head]] = {
    "softmax": Softmax,
    "cosface": CosFace,
    "arcface": ArcFace,
}


def build_head(name: str, **args: Any) -> Head:
    """Build a head by name.

    Raises:
        RecipeError: no such head, no such argument, or a value out of range.
    """
    if name not in HEADS:
        raise RecipeError(unknown_name("head", name, HEADS))
    known = [key for key in inspect.signature(HEADS[name].__init__).parameters if key != "self"]
    for key in args:
        if key not in known:
            raise RecipeError(unknown_name(f"argument of head {name!r}", key, known))
    return HEADS[name](**args)
