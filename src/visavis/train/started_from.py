"""With `init` network and preprocessing are the model's: a recipe that wishes others is refused, not ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import RecipeError
from visavis.models.card import ModelCard, find_model, read_card

if TYPE_CHECKING:
    from visavis.train.recipe import Recipe

_SECTIONS = ("backbone", "preprocess")


def settled(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str], *, name: str) -> Recipe:
    """The recipe with the backbone and the preprocessing of the model it starts from, so that it says what is done.

    Args:
        recipe: as parsed.
        values: what its file says, to tell wishes from defaults.
        overrides: what the command line says.
        name: the recipe's, for the message.

    Raises:
        RecipeError: the file or the command line wishes another backbone or preprocessing than the model's.
    """
    if not recipe.init or not Path(recipe.init).exists():  # a model that is not there is said when it is opened
        return recipe
    found = find_model(recipe.init)
    if not found.is_dir():
        return recipe
    card = read_card(found)
    there = _values_of(card, recipe)
    for key, wish in _wishes(recipe, values, overrides).items():
        if not _equal(wish, there[key]):
            raise RecipeError(
                f"{name}: {key} {wish!r} has no effect: the run starts from {recipe.init}, whose {key} is "
                f"{there[key]!r}; leave it out, or train without init"
            )
    sections = {section: getattr(recipe, section) for section in _SECTIONS}
    for key, value in there.items():
        section, field = key.split(".")
        sections[section] = dataclasses.replace(sections[section], **{field: value})
    return dataclasses.replace(recipe, **sections)


def _wishes(recipe: Recipe, values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """What the file and the command line say of the two sections, key by key, as parsed."""
    keys = [f"{section}.{key}" for section in _SECTIONS for key in values.get(section) or {}]
    keys += [word[2:].split("=")[0] for word in overrides if word.startswith("--")]
    wishes = {}
    for key in keys:
        section, _, rest = key.partition(".")
        field = rest.split(".")[0]
        if section in _SECTIONS and field:
            wishes[f"{section}.{field}"] = getattr(getattr(recipe, section), field)
    return wishes


def _values_of(card: ModelCard, recipe: Recipe) -> dict[str, Any]:
    spec = card.preprocess.to_dict()
    known = {field.name for field in dataclasses.fields(recipe.preprocess)}
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
