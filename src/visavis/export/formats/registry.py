"""FORMATS: what can be exported, by name; a format's file is imported when it is named."""

from __future__ import annotations

from importlib import import_module

from visavis.errors import RecipeError, unknown_name
from visavis.export.formats.base import Format

# Each module ends in its FORMAT.
FORMATS: dict[str, str] = {
    "onnx": "visavis.export.formats.onnx",
    "openvino": "visavis.export.formats.openvino",
    "mindir": "visavis.export.formats.mindir",
    "torch": "visavis.export.formats.torch_program",
}


def load_format(name: str) -> Format:
    """The format of that name.

    Raises:
        RecipeError: an unknown name; the known ones are listed.
    """
    if name not in FORMATS:
        raise RecipeError(unknown_name("format", name, FORMATS))
    return import_module(FORMATS[name]).FORMAT
