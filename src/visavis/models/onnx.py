"""Embedders from whatever a user calls MODEL: an .onnx or OpenVINO file without torch, a folder of weights with it."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError, RecipeError, unknown_name
from visavis.files import digest_of
from visavis.metrics.similarity import unit_rows
from visavis.models.card import CARD, ONNX, WEIGHTS, ModelCard, find_model, read_card
from visavis.models.onnx_errors import unknown_operator
from visavis.models.providers import accelerated_session
from visavis.types import ByteArray, Embedder
from visavis.vision.preprocessing import Flip, PreprocessSpec, fit_crops

CARD_KEY = "visavis.card"
INPUT_KEY = "visavis.input"  # "uint8 pixels" or "float pixels"; absent from foreign files, which want x normalised
RUNTIMES = ("auto", "onnxruntime", "openvino", "torch")
Runtime = Literal["auto", "onnxruntime", "openvino", "torch"]


def load_embedder(
    path: str | os.PathLike[str],
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
        path: a model folder, a run folder (its best model), an `.onnx` or an OpenVINO `.xml` file.
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
    if found.is_dir():
        card = _scorable(read_card(found), found)
        best = _best(card) if runtime == "auto" else {}
        exported = _exported_file(found, card, flip, runtime, best)
        if exported is None:
            return _load_weights(found, card, flip, batch_size, device)
        found = exported
        threads = best.get("threads") if threads is None else threads
    if runtime == "torch":
        raise ModelFormatError(f"{found}: torch runs a model folder's weights, not an exported file; give the folder")
    if found.suffix == ".xml" or runtime == "openvino":
        openvino = importlib.import_module("visavis.models.openvino")
        return openvino.OpenVinoEmbedder(found, flip=flip, batch_size=batch_size, threads=threads)
    return OnnxEmbedder(found, flip=flip, batch_size=batch_size, threads=threads)


def _scorable(card: ModelCard, path: Path) -> ModelCard:
    """Refuse a model compared by anything but the cosine, which is what unit rows are made for."""
    if card.similarity != "cosine":
        raise ModelFormatError(f"{path}: compares embeddings by {card.similarity}; this visavis compares by cosine")
    return card


def _best(card: ModelCard) -> dict[str, Any]:
    best = card.exports.get("best", {})
    return dict(best) if isinstance(best, dict) else {}


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
    record = card.exports.get(path.name, {})
    return bool(
        isinstance(record, dict)
        and record.get("weights_digest") == card.weights_digest
        and record.get("flip") in ("none", flip)
        and record.get("digest") == digest_of(path)
    )


def _load_weights(folder: Path, card: ModelCard, flip: Flip | None, batch_size: int, device: str) -> Embedder:
    try:
        models = importlib.import_module("visavis.models.torch")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "safetensors"):
            raise ModelFormatError(
                f"{folder}: running a model folder's weights needs {error.name}, which is not installed; "
                "pip install 'visavis[train]', or export where it is: visavis export MODEL --format onnx"
            ) from error
        raise
    network, _ = models.load_model(folder, device=device)
    spec = card.preprocess if flip is None else replace(card.preprocess, flip=flip)
    return models.TorchEmbedder(network, spec, device=device, batch_size=batch_size)


def check_card(name: str, card: ModelCard, shape: list[Any], columns: Any, *, nhwc: bool, pixels: bool) -> None:
    """Refuse a graph whose input or output contradicts its card.

    Raises:
        ModelFormatError: the picture size or the embedding length differ.
    """
    height, width = card.preprocess.size
    expected = [height, width, 3] if nhwc else [3, height, width]
    if list(shape[1:]) != expected:
        raise ModelFormatError(
            f"{name}: the card says crops of {height}×{width}, the graph takes {shape[1:]}; card and graph disagree"
        )
    dim = card.embedding_dim * (2 if pixels and card.preprocess.flip == "concat" else 1)
    if isinstance(columns, int) and columns != dim:
        raise ModelFormatError(
            f"{name}: the card says embeddings of {dim}, the graph gives {columns}; card and graph disagree"
        )


class GraphEmbedder:
    """What ONNX Runtime and OpenVINO share: batching, the float input's normalisation, the mirrored view, unit rows.

    An export of visavis takes `pixels`, normalises and fuses inside; a foreign graph wants x normalised and fuses
    nothing. Another `flip` than the graph's is possible only where it fuses nothing: then the mirrored crops run
    through it a second time.
    """

    def __init__(
        self, card: ModelCard, *, name: str, flip: Flip | None, batch_size: int, nhwc: bool, pixels: bool
    ) -> None:
        built: Flip = card.preprocess.flip if pixels else "none"
        if flip not in (None, built) and built != "none":
            raise ModelFormatError(
                f"{name}: its graph fuses the mirrored picture by {built!r}, so it cannot run with flip {flip!r}; "
                "use the model folder, or export with --flip none"
            )
        self.card = card
        self.spec: PreprocessSpec = card.preprocess
        self.flip: Flip = flip or card.preprocess.flip
        self.batch_size = max(1, int(batch_size))
        self._outside = self.flip if built == "none" else "none"
        self._nhwc = nhwc
        self._pixels = pixels
        self._graph_dim = card.embedding_dim * (2 if built == "concat" else 1)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._graph_dim * (2 if self._outside == "concat" else 1)

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One batch in the graph's own layout -> raw features."""
        raise NotImplementedError

    def embed(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """Embed uint8 crops (N, H, W, 3), RGB, as float32 (N, D) with rows of length 1.

        Raises:
            DataError: crops of another type or shape.
        """
        return unit_rows(self.features(crops))

    def features(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """The fused features (N, D) before they are scaled to length 1; their norm tells of a picture's quality."""
        if self._outside == "none" and 0 < len(crops) <= self.batch_size:
            return self.run(self.layout(fit_crops(crops, self.spec)))  # nothing to join: a picture at once is one call
        return self.measure(crops)[0]

    def measure(self, crops: ByteArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The fused features (N, D), and the mean length (N,) of the views' raw features before they are fused.

        The lengths are NaN where the graph itself adds the mirrored view, since it shows the sum only.
        """
        crops = fit_crops(crops, self.spec)
        result, norms = np.empty((len(crops), self.dim), np.float32), np.empty(len(crops), np.float32)
        for start in range(0, len(crops), self.batch_size):
            batch = crops[start : start + self.batch_size]
            part = slice(start, start + len(batch))
            result[part], norms[part] = self._fuse(self._views(batch))
        return result, norms

    def _views(self, batch: ByteArray) -> list[npt.NDArray[np.float32]]:
        """Raw features (N, D) of the picture and, where the graph does not see to it, of its mirror image."""
        feature = self.run(self.layout(batch))
        return [feature] if self._outside == "none" else [feature, self.run(self.layout(batch[:, :, ::-1]))]

    def _fuse(self, views: list[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.floating]]:
        """Features as the rule for the mirrored view says, and the views' mean length."""
        fused = np.concatenate(views, 1) if self._outside == "concat" else np.sum(views, axis=0)
        if len(views) == 1 and self.flip == "sum":
            return fused, np.full(len(fused), np.nan)
        single = np.split(views[0], 2, axis=1) if len(views) == 1 and self.flip == "concat" else views
        return fused, np.mean([np.linalg.norm(v, axis=1) for v in single], axis=0)

    @property
    def pixels(self) -> str:
        """What the graph takes: uint8 or float pixels, or normalised values."""
        return "uint8" if self._nhwc else "float" if self._pixels else "normalised"

    def layout(self, batch: ByteArray) -> npt.NDArray[Any]:
        """Crops (N, H, W, 3) of the network's size as the graph takes them."""
        if self._nhwc:
            return np.ascontiguousarray(batch)
        if self._pixels:
            return np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32)
        ordered = batch[..., ::-1] if self.spec.channels == "BGR" else batch
        x = ordered.astype(np.float32)
        x -= np.asarray(self.spec.mean, np.float32)
        x /= np.asarray(self.spec.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class OnnxEmbedder(GraphEmbedder):
    """An exported `.onnx` file in ONNX Runtime.

    Args:
        path: the file; its metadata key `visavis.card` holds the model card. A foreign file needs a card of the same
            name beside it: `FILE.card.json`.
        flip: overrides the card's, where the graph fuses nothing itself.
        batch_size: crops at once; a graph of fixed batch is fed that many.
        threads: intra-op threads; the usable cores when None.

    Raises:
        ModelFormatError: damaged, without a card, or its card and graph disagree.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        flip: Flip | None = None,
        batch_size: int = 64,
        threads: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.session = open_session(self.path, threads=threads)
        try:
            metadata = self.session.get_modelmeta().custom_metadata_map
            inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        except UnicodeDecodeError as error:
            raise ModelFormatError(f"{self.path}: damaged: its names or metadata are no text ({error})") from error
        card = _scorable(_card_of(self.path, metadata), self.path)
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in ("tensor(uint8)", "tensor(float)"):
            said = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise ModelFormatError(f"{self.path}: expected one input, uint8 N×H×W×3 or float N×3×H×W, got {said}")
        names = [output.name for output in outputs]
        self._output = "embedding" if "embedding" in names else names[0]
        self._input = inputs[0].name
        nhwc, pixels = inputs[0].type == "tensor(uint8)", INPUT_KEY in metadata
        columns = outputs[names.index(self._output)].shape
        check_card(str(self.path), card, inputs[0].shape, columns[-1] if columns else None, nhwc=nhwc, pixels=pixels)
        super().__init__(card, name=str(self.path), flip=flip, batch_size=batch_size, nhwc=nhwc, pixels=pixels)
        fixed = inputs[0].shape[0]
        self._fixed = fixed if isinstance(fixed, int) else None
        if self._fixed is not None:
            self.batch_size = self._fixed

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """One batch in the graph's own layout -> raw features (N, D)."""
        count = len(x)
        if self._fixed is not None and count < self._fixed:
            x = np.concatenate([x, np.zeros((self._fixed - count, *x.shape[1:]), x.dtype)])
        try:
            feature = self.session.run([self._output], {self._input: x})[0]
        except Exception as error:  # ONNX Runtime raises bare subclasses of Exception of its own
            raise DataError(f"{self.path}: ONNX Runtime refused the crops: {first_line(error)}") from error
        return np.asarray(feature, np.float32).reshape(len(x), -1)[:count]


def open_session(path: Path, *, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the best accelerator that starts, else on the CPU; see `models/providers.py`.

    Raises:
        ModelFormatError: no such file, damaged, or with operators the runtime does not know.
    """
    try:
        return accelerated_session(path, threads=threads)
    except Exception as error:  # see above
        reason = unknown_operator(path, str(error))
        reason = reason or f"ONNX Runtime cannot load it, damaged or not an ONNX model: {first_line(error)}"
        raise ModelFormatError(f"{path}: {reason}") from error


def _card_of(path: Path, metadata: dict[str, str]) -> ModelCard:
    if CARD_KEY in metadata:
        return ModelCard.from_json(metadata[CARD_KEY], name=f"{path} (metadata {CARD_KEY})")
    beside = path.with_suffix(".card.json")
    if beside.is_file():
        return ModelCard.from_json(beside.read_text(encoding="utf-8"), name=str(beside))
    if (path.parent / CARD).is_file() and (card := read_card(path.parent)).backbone == "onnx":
        return card
    raise ModelFormatError(
        f"{path}: carries no model card, so its preprocessing is unknown; wrap it with: "
        f"visavis import {path.name} --backbone onnx --out MODEL --preprocess size=112x112,mean=127.5,std=127.5"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else error.__class__.__name__
