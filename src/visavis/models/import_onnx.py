"""ONNX files of others: wrapped into a model folder whose card says what the graph itself does not."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis.errors import ModelFormatError
from visavis.files import atomic_file, digest_of
from visavis.models.card import ONNX, ModelCard, write_card
from visavis.models.onnx import OnnxEmbedder, listed, open_session
from visavis.onnx_file import simplified
from visavis.runtimes import onnx_session
from visavis.vision.preprocessing import PreprocessSpec


def import_onnx(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    preprocess: Mapping[str, Any],
    given: Mapping[str, Any],
) -> tuple[ModelCard, list[str]]:
    """Copy a foreign ONNX recognizer into a model folder beside a card; needs no torch.

    Args:
        path: one input float N×3×H×W (normalized outside) or uint8 N×H×W×3; its first output is the feature.
        out: folder to write.
        preprocess: fields of a PreprocessSpec; mean and std must be there, size too where the graph leaves it open.
        given: other fields of the card (license, source ...).

    Returns:
        The card and what there is to say about the graph.

    Raises:
        ModelFormatError: damaged, not a recognizer's graph, or preprocessing unsaid or contrary to the graph.
    """
    source, home = Path(path), Path(out)
    if not source.is_file():
        raise ModelFormatError(f"{source}: expected an .onnx file, got {'a folder' if source.is_dir() else 'no file'}")
    session, content = open_session(source), None
    if len(session.get_inputs()) > 1:  # some are declared that nobody feeds: weights, or what no node reads
        content = simplified(source.read_bytes())
        session = onnx_session(content)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ModelFormatError(
            f"{source}: expected one input of pictures, float N×3×H×W or uint8 N×H×W×3, got {listed(inputs)}"
        )
    shape = inputs[0].shape
    sides = shape[1:3] if inputs[0].type == "tensor(uint8)" else shape[2:]
    fields = dict(preprocess)
    if all(isinstance(side, int) for side in sides):
        fields.setdefault("size", (int(sides[0]), int(sides[1])))
    unsaid = [key for key in ("size", "mean", "std") if key not in fields]
    if unsaid:
        raise ModelFormatError(
            f"{source}: the graph does not say its preprocessing, {', '.join(unsaid)} missing; as in "
            "--preprocess size=112x112,channels=RGB,mean=127.5,std=127.5"
        )
    dim = outputs[0].shape[-1]
    if not isinstance(dim, int):
        raise ModelFormatError(
            f"{source}: its first output {outputs[0].name} has no fixed length but {outputs[0].shape}"
        )
    card = ModelCard(home.name, "onnx", dim, PreprocessSpec(**fields), weights_digest=digest_of(source), **given)
    with source.open("rb") as graph, atomic_file(home / ONNX) as copy:
        shutil.copyfileobj(graph if content is None else io.BytesIO(content), copy)
    write_card(home, card)
    OnnxEmbedder(home / ONNX)  # refuses now, not at the first evaluation, a card its graph contradicts
    batch = "any batch" if not isinstance(shape[0], int) else f"a fixed batch of {shape[0]}"
    others = f"; other outputs unused: {', '.join(o.name for o in outputs[1:])}" if len(outputs) > 1 else ""
    return card, [f"graph input {inputs[0].name} {inputs[0].type}, {batch}, output {outputs[0].name}{others}"]
