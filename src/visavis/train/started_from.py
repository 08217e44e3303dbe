"""With `init` network and preprocessing are the model's: a recipe that wishes others is refused, not ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visavis.errors import RecipeError
from visavis.models.card import ModelCard, read_card
from visavis.models.find import find_model


def settled(
    init: str, sections: Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str], *, name: str
) -> dict[str, Any]:
    """The sections `backbone` and `preprocess` of a recipe as the model it starts from has them.

    Args:
        init: the model.
        sections: the two as parsed, by name.
        values: what its file says, to tell wishes from defaults.
        overrides: what the command line says.
        name: the recipe's, for the message.

    Raises:
        RecipeError: the file or the command line wishes another backbone or preprocessing than the model's.
    """
    if not init or not Path(init).exists():  # a model that is not there is said when it is opened
        return dict(sections)
    found = find_model(init)
    if not found.is_dir():
        return dict(sections)
    there = _values_of(read_card(found), sections["preprocess"])
    for key, wish in _wishes(sections, values, overrides).items():
        if not _equal(wish, there[key]):
            raise RecipeError(
                f"{name}: {key} {wish!r} has no effect: the run starts from {init}, whose {key} is "
                f"{there[key]!r}; leave it out, or train without init"
            )
    return {
        section: dataclasses.replace(
            parsed, **{key.split(".")[1]: value for key, value in there.items() if key.startswith(f"{section}.")}
        )
        for section, parsed in sections.items()
    }


def _wishes(sections: Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """What the file and the command line say of the two sections, key by key, as parsed."""
    keys = [f"{section}.{key}" for section in sections for key in values.get(section) or {}]
    keys += [word[2:].split("=")[0] for word in overrides if word.startswith("--")]
    wishes = {}
    for key in keys:
        section, _, rest = key.partition(".")
        field = rest.split(".")[0]
        if section in sections and field:
            wishes[f"{section}.{field}"] = getattr(sections[section], field)
    return wishes


def _values_of(card: ModelCard, preprocess: Any) -> dict[str, Any]:
    spec = card.preprocess.to_dict()
    known = {field.name for field in dataclasses.fields(preprocess)}
    return {
        "backbone.name": card.backbone,
        "backbone.dim": card.embedding_dim,
        "backbone.args": dict(card.backbone_args),
        **{f"preprocess.{key}": _plain(value) for key, value in spec.items() if key in known},
    }


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(_equal(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    return first == second
