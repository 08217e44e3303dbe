"""YAML as plain values, without what it lets pass: a key that stands twice, endless nesting, huge files."""

from __future__ import annotations

from typing import Any

import yaml

from visavis.errors import RecipeError

_MAX_CHARACTERS = 1_000_000


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader keeps the last of two equal keys in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in getattr(node, "value", ()):
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, *, name: str) -> Any:
    """The plain values of a YAML text; None of an empty one.

    Raises:
        RecipeError: not YAML, a key twice in one mapping, nested too deep, or longer than a million characters.
    """
    if len(text) > _MAX_CHARACTERS:
        raise RecipeError(f"{name}: expected a recipe of at most {_MAX_CHARACTERS:,} characters, got {len(text):,}")
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise RecipeError(f"{name}: not YAML: {reason}") from error
