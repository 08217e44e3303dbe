"""Pictures of one's own in place of a recipe's generated people: what `--data SRC` means beside the source itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from visavis.errors import RecipeError

log = logging.getLogger(__name__)
GENERATED = "data.generated"


def with_own_data(values: Mapping[str, Any], overrides: Sequence[str], *, kept: bool = False) -> list[str]:
    """The overrides, with what a source of pictures given among them changes besides.

    It replaces the recipe's generated people, and the run is judged by them no more: `--data.generated` adds them
    instead, and whoever sets `data.synthetic.identities` is taken at their word. Where the pairs to judge by are named,
    or pictures of the people trained on, nobody is held out of training for it.

    Args:
        values: the recipe's file.
        overrides: `--section.field=value` words, or `--section.field value`.
        kept: the recipe is a run's own; its source has only moved.

    Raises:
        RecipeError: --data.generated without a source, or where the recipe has no generated people.
    """
    words = list(overrides)
    adds, words = _taken(words)
    named = {word[2:].split("=")[0] for word in words if word.startswith("--") and not word.endswith("source=")}
    data = values.get("data")
    generated = _count(data)
    gives_source = "data.source" in named and not kept
    if adds and not (gives_source and generated):
        why = "it is given without --data SRC" if not gives_source else "this recipe has none"
        raise RecipeError(
            f"--{GENERATED} adds a recipe's generated people to the pictures of --data SRC, and {why}; generated "
            "people besides: --data.synthetic.identities N"
        )
    if gives_source and generated and not adds and "data.synthetic.identities" not in named:
        log.info("--data takes the place of the recipe's %d generated people; --%s adds them", generated, GENERATED)
        words = ["--data.synthetic.identities=0", *words]
    judged = named & {"evaluate.pairs", "evaluate.source", "evaluate.valid"}
    if judged and not kept and "data.held_out" not in named and isinstance(data, Mapping) and data.get("held_out"):
        words = ["--data.held_out=0", *words]
    return words


def _taken(words: list[str]) -> tuple[bool, list[str]]:
    """Whether --data.generated is among the words, and the others."""
    flag, adds, rest = f"--{GENERATED}", False, []
    for word in words:
        name, _, value = word.partition("=")
        if name != flag:
            rest.append(word)
        elif value.lower() in ("", "true", "false"):
            adds = value.lower() != "false"
        else:
            raise RecipeError(f"{flag} takes no value, got {value!r}; put it behind the recipe and its options")
    return adds, rest


def _count(data: Any) -> int:
    synthetic = data.get("synthetic") if isinstance(data, Mapping) else None
    count = synthetic.get("identities", 0) if isinstance(synthetic, Mapping) else 0
    return count if isinstance(count, int) else 0
