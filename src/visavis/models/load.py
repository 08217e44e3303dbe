"""Any MODEL as an Embedder: an .onnx or OpenVINO file without torch, a folder by its export or its weights."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from visavis.errors import ModelFormatError, RecipeError, unknown_name
from visavis.files import digest_of
from visavis.machine import usable_cores
from visavis.models.card import ONNX, WEIGHTS, ModelCard, read_card
from visavis.models.find import find_model
from visavis.models.graph import GraphEmbedder, require_cosine
from visavis.models.licenses import check_license
from visavis.models.onnx import OnnxEmbedder
from visavis.types import Embedder, json_object
from visavis.vision.preprocessing import Flip

RUNTIMES = ("auto", "onnxruntime", "openvino", "torch")
Runtime = Literal["auto", "onnxruntime", "openvino", "torch"]


def load_embedder(
    path: str | os.PathLike[str] | None,
    *,
    flip: Flip | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    runtime: Runtime = "auto",
    device: str = "cpu",
) -> Embedder:
    """Load a model as an Embedder.

    A folder is run from its exported file when that was made of the very weights beside it, else from the weights,
    which needs torch. `auto` follows what `visavis bench --save` wrote into the card.

    Args:
        path: a model folder, a run folder (its best model), an `.onnx` or an OpenVINO `.xml` file, or the name of a
            packaged model; the packaged default when None.
        flip: overrides the card's rule for the mirrored picture: none, sum or concat.
        batch_size: crops at once.
        threads: threads of the runtime; the usable cores when None.
        runtime: which runtime must run it.
        device: where torch runs it.

    Raises:
        ModelFormatError: no model, a damaged one, one that contradicts its card, or a runtime that is not installed.
    """
    if runtime not in RUNTIMES:
        raise RecipeError(unknown_name("runtime", runtime, RUNTIMES))
    found = find_model(path)
    folder = found.is_dir()
    if folder:
        card = require_cosine(read_card(found), found)
        check_license(card, found)
        best = _best(card, found) if runtime == "auto" else {}
        exported = _exported_file(found, card, flip, runtime, best)
        if exported is None:
            return _load_weights(found, card, flip, batch_size, device)
        found = exported
        threads = best.get("threads") if threads is None else threads
    if runtime == "torch":
        raise ModelFormatError(f"{found}: torch runs a model folder's weights, not an exported file; give the folder")
    if found.suffix == ".xml" or runtime == "openvino":
        from visavis.models.openvino import OpenVinoEmbedder

        embedder: GraphEmbedder = OpenVinoEmbedder(found, flip=flip, batch_size=batch_size, threads=threads)
    else:
        embedder = OnnxEmbedder(found, flip=flip, batch_size=batch_size, threads=threads)
    if not folder:
        check_license(embedder.card, found)
    return embedder


def _best(card: ModelCard, folder: Path) -> dict[str, Any]:
    """What `visavis bench --save` chose; threads of a larger machine are cut to this one's."""
    stored = card.exports.get("best", {})
    best = json_object(stored)
    if best is None:
        raise ModelFormatError(f"{folder}: exports.best must be an object, got {stored!r:.60}")
    wrong = [key for key in ("file", "runtime") if not isinstance(best.get(key, ""), str)]
    if wrong:
        raise ModelFormatError(f"{folder}: exports.best.{wrong[0]} must be text, got {best[wrong[0]]!r:.60}")
    threads = best.get("threads")
    if threads is None:
        return best
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ModelFormatError(f"{folder}: exports.best.threads must be a whole number from 1, got {threads!r:.60}")
    return {**best, "threads": min(threads, usable_cores())}


def _exported_file(folder: Path, card: ModelCard, flip: Flip | None, runtime: str, best: dict[str, Any]) -> Path | None:
    """The exported file of a folder that may stand for its weights, None when the weights themselves must run."""
    if runtime == "torch" or (runtime == "auto" and best.get("runtime") == "torch"):
        return None
    names = [str(best["file"])] if "file" in best else []
    names += ["model.xml", ONNX] if runtime == "openvino" else [ONNX]
    for name in names:
        path = folder / Path(name).name
        if path.is_file() and _stands_for(path, folder, card, flip or card.preprocess.flip):
            return path
    if (folder / WEIGHTS).is_file() and runtime == "auto":
        return None
    wanted = " or ".join(dict.fromkeys(names))
    raise ModelFormatError(
        f"{folder}: no {wanted} made of these weights; write it with: visavis export {folder} --format "
        f"{'openvino' if runtime == 'openvino' else 'onnx'}"
    )


def _stands_for(path: Path, folder: Path, card: ModelCard, flip: Flip) -> bool:
    """Whether a file stems from the folder's present weights and fuses as wanted; a stale one must not stand in."""
    if not (folder / WEIGHTS).is_file():
        return True
    record = json_object(card.exports.get(path.name)) or {}
    return bool(
        record.get("weights_digest") == card.weights_digest
        and record.get("flip") in ("none", flip)
        and record.get("digest") == digest_of(path)
    )


def _load_weights(folder: Path, card: ModelCard, flip: Flip | None, batch_size: int, device: str) -> Embedder:
    try:
        from visavis.models.torch import TorchEmbedder, load_model
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "safetensors"):
            raise ModelFormatError(
                f"{folder}: running a model folder's weights needs {error.name}, which is not installed; "
                "pip install 'visavis[train]', or export where it is: visavis export MODEL --format onnx"
            ) from error
        raise
    network, _ = load_model(folder, device=device)
    spec = card.preprocess if flip is None else replace(card.preprocess, flip=flip)
    return TorchEmbedder(network, spec, device=device, batch_size=batch_size)
