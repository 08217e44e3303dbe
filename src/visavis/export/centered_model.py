"""A model's graph with the mean of one's own people taken away behind it; a model folder like any other."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError
from visavis.files import write_atomically
from visavis.metrics.centering import centered, person_mean
from visavis.metrics.similarity import unit_rows
from visavis.models.card import ONNX, ModelCard, write_card
from visavis.models.graph import CARD_KEY, IDENTITIES_KEY
from visavis.models.onnx import OnnxEmbedder
from visavis.runtimes import import_runtime
from visavis.types import ByteArray, FloatArray, IntArray

_TOLERANCE = 1e-5  # 1 − cosine between the graph and the rule
NOTE = "centered"


def graph_features(embedder: OnnxEmbedder, crops: ByteArray) -> npt.NDArray[np.float32]:
    """What the graph itself gives for crops (N, H, W, 3), unit rows (N, D): where it does not add the mirrored view,
    the mean of both views', as they are added outside behind the graph.
    """
    plain = (
        embedder if embedder.graph_fuses else OnnxEmbedder(embedder.path, flip="none", batch_size=embedder.batch_size)
    )
    views = [crops] if plain.flip == embedder.flip else [crops, crops[:, :, ::-1]]
    return np.mean([plain.embed(np.ascontiguousarray(view)) for view in views], axis=0)


def write_centered(
    embedder: OnnxEmbedder,
    features: FloatArray,
    labels: IntArray,
    out: str | os.PathLike[str],
    *,
    card: ModelCard,
    try_on: ByteArray,
) -> ModelCard:
    """Write a model folder whose graph gives x/‖x‖ − m, m the mean over people of `features`.

    Nothing is trained and nothing else changes: size, speed and preprocessing stay. It is another model, though: its
    galleries are its own, and thresholds are calibrated anew.

    Args:
        embedder: the model, run from an ONNX file.
        features: of the own people's crops, as `graph_features` gives them, (N, D).
        labels: who is on each, (N,).
        out: folder to write; must not be there.
        card: the model's.
        try_on: crops on which the new graph is compared with the rule before anything is written in place.

    Raises:
        DataError: `out` is there, or cannot be written.
        ModelFormatError: the new graph gives something else.
    """
    target, mean = Path(out), person_mean(features, labels)
    if target.exists():
        raise DataError(f"{target} is there already; name a new folder with --out, or delete it")
    digest = hashlib.sha256(card.weights_digest.encode() + mean.astype("<f4").tobytes()).hexdigest()
    people = len(np.unique(labels))
    new = card.with_changes(
        name=target.name, backbone="onnx", backbone_args={}, weights_digest=digest, thresholds={}, evaluations={},
        exports={}, source=f"{card.name}, centered", training_data=f"{card.training_data}; centered on {people} people",
        notes={**card.notes, NOTE: {"people": people, "pictures": len(labels), "of": card.weights_digest}},
    )  # fmt: skip
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write_atomically(part / ONNX, _centered_graph(embedder, mean, new))
        for notice in sorted(embedder.path.parent.glob("*.txt")):  # licenses and notices go with every copy
            shutil.copyfile(notice, part / notice.name)
        write_card(part, new)
        _check(embedder, OnnxEmbedder(part / ONNX), mean, try_on)
        part.rename(target)
    except OSError as error:
        raise DataError(f"{target}: cannot write the model ({error.strerror})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return new


def _centered_graph(embedder: OnnxEmbedder, mean: npt.NDArray[np.float64], card: ModelCard) -> bytes:
    """The file's graph with `LpNormalization` and `Sub` behind its embedding, which is its only output."""
    onnx = import_runtime("onnx")
    model: Any = onnx.load_model_from_string(embedder.path.read_bytes())
    graph, name = model.graph, embedder.output_name
    for node in graph.node:
        for names in (node.output, node.input):
            names[:] = [f"{name} before centering" if n == name else n for n in names]
    kind = next(output for output in graph.output if output.name == name).type.tensor_type.elem_type
    numpy_kind = onnx.helper.tensor_dtype_to_np_dtype(kind)
    graph.initializer.append(onnx.numpy_helper.from_array(mean.astype(numpy_kind), "mean of the people"))
    graph.node.extend(
        [
            onnx.helper.make_node("LpNormalization", [f"{name} before centering"], ["unit embedding"], axis=1, p=2),
            onnx.helper.make_node("Sub", ["unit embedding", "mean of the people"], [name]),
        ]
    )
    output = onnx.helper.make_tensor_value_info(name, kind, ["N", len(mean)])
    del graph.output[:]
    graph.output.append(output)
    kept = [p for p in model.metadata_props if p.key not in (CARD_KEY, IDENTITIES_KEY)]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.to_json()
    return model.SerializeToString()


def _check(before: OnnxEmbedder, after: OnnxEmbedder, mean: npt.NDArray[np.float64], crops: ByteArray) -> None:
    views = crops if before.graph_fuses else np.concatenate([crops, crops[:, :, ::-1]])
    plain = [m if m.graph_fuses else OnnxEmbedder(m.path, flip="none") for m in (before, after)]
    old, new = (m.embed(np.ascontiguousarray(views)) for m in plain)
    off = float(np.max(1 - np.sum(unit_rows(centered(old, mean)) * new, axis=1)))
    if not off < _TOLERANCE:
        raise ModelFormatError(f"the centered graph gives other embeddings than the rule (1 − cosine up to {off:.1e})")
