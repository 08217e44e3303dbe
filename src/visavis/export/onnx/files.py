"""ONNX files in and out, and the card in their metadata; needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import onnx

from visavis.errors import ModelFormatError
from visavis.files import write_atomically
from visavis.models.card import ModelCard
from visavis.models.graph import CARD_KEY, IDENTITIES_KEY, INPUT_KEY

Exporter = Literal["torchscript", "dynamo"]
Input = Literal["uint8", "float", "normalized"]
OPSETS = range(17, 24)


def set_metadata(model: onnx.ModelProto, card: ModelCard, *, pixels: Input, identities: Sequence[str] = ()) -> None:
    """Store the card, what the input holds and whom the logits stand for, replacing what was there.

    A foreign graph's input is said by absence; without `identities` those stored before stay.
    """
    replaced = {CARD_KEY, INPUT_KEY} | ({IDENTITIES_KEY} if identities else set())
    kept = [p for p in model.metadata_props if p.key not in replaced]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    values = {CARD_KEY: card.to_json()}
    if pixels != "normalized":
        values[INPUT_KEY] = f"{pixels} pixels"
    if identities:
        values[IDENTITIES_KEY] = json.dumps(identities)
    for key, value in values.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def write_onnx(path: str | os.PathLike[str], model: onnx.ModelProto) -> None:
    """Write an ONNX model atomically.

    Raises:
        ModelFormatError: beyond protobuf's 2 GB.
        DataError: the folder cannot be written.
    """
    try:
        data = model.SerializeToString()
    except Exception as error:  # protobuf's own EncodeError
        raise ModelFormatError(f"{path}: the graph exceeds the 2 GB an .onnx file may hold ({error})") from error
    write_atomically(Path(path), data)


def read_onnx(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read an ONNX model.

    Raises:
        ModelFormatError: missing, truncated or no ONNX file.
    """
    try:
        model = onnx.load_model_from_string(Path(path).read_bytes())
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelFormatError(f"{path}: cannot read ({error.strerror})") from error
    except Exception as error:  # protobuf's DecodeError and onnx's ValidationError
        raise ModelFormatError(f"{path}: damaged or no ONNX file ({cause_of(error)})") from error
    return model


def cause_of(error: BaseException) -> str:
    """The first line of the error at the root of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else error.__class__.__name__)[:300]
