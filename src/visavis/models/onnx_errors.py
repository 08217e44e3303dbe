"""Why ONNX Runtime refuses a file: an operator it does not know, by name and layer, or damage."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_UNKNOWN = (
    r"No Op registered for (?P<op>\w+)",
    r"Fatal error: (?P<op>[\w.]*:?\w+)\(-?\d+\) is not a registered",
    r"Could not find an implementation for (?P<op>[\w.]*:?\w+)\(\d+\)",
)
_LAYER = (r"In Node, \(\"([^\"]+)\"", r"node with name '([^']+)'")


def unknown_operator(path: Path, message: str) -> str | None:
    """What to say of a file with an operator ONNX Runtime does not know; None when that is not its complaint."""
    found = next(filter(None, (re.search(pattern, message) for pattern in _UNKNOWN)), None)
    if found is None:
        return None
    operator = found["op"].lstrip(":")
    named = next(filter(None, (re.search(pattern, message) for pattern in _LAYER)), None)
    layers = [named[1]] if named else layers_of(path, operator)
    return f"ONNX Runtime does not know operator {operator}{of_layers(layers)}"


def layers_of(path: Path, operator: str) -> list[str]:
    """Names of the nodes of one operator, `domain:Type` or `Type`; none where the onnx package is missing."""
    try:
        import onnx

        model: Any = onnx.load(path, load_external_data=False)  # pyright: ignore[reportUnknownMemberType]
    except Exception:  # not installed, or as damaged as the runtime says
        return []
    return names_of(model.graph.node, operator)


def names_of(nodes: Iterable[Any], operator: str) -> list[str]:
    """The same of a graph's nodes."""
    domain, _, kind = operator.rpartition(":")
    return [n.name or n.output[0] for n in nodes if n.op_type == kind and domain in ("", n.domain)]


def of_layers(layers: list[str]) -> str:
    """` of layer A, B and 3 more`, nothing when there is none."""
    if not layers:
        return ""
    return f" of layer {', '.join(layers[:3])}" + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
