"""ONNX files as Embedders, in ONNX Runtime, without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError
from visavis.models.card import CARD, ModelCard, read_card
from visavis.models.graph import (
    CARD_KEY,
    IDENTITIES_KEY,
    INPUT_KEY,
    LOGITS,
    GraphEmbedder,
    check_card,
    identities_of,
    require_cosine,
)
from visavis.models.onnx_errors import unknown_operator
from visavis.models.providers import accelerated_session
from visavis.vision.preprocessing import Flip

if TYPE_CHECKING:
    from jaxtyping import Float

_LISTED = 3


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
        card = require_cosine(_card_of(self.path, metadata), self.path)
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in ("tensor(uint8)", "tensor(float)"):
            raise ModelFormatError(
                f"{self.path}: expected one input, uint8 N×H×W×3 or float N×3×H×W, got {listed(inputs)}"
            )
        names = [output.name for output in outputs]
        self._output = "embedding" if "embedding" in names else names[0]
        self._input = inputs[0].name
        nhwc, pixels = inputs[0].type == "tensor(uint8)", INPUT_KEY in metadata
        columns = outputs[names.index(self._output)].shape
        check_card(str(self.path), card, inputs[0].shape, columns[-1] if columns else None, nhwc=nhwc, pixels=pixels)
        classes = outputs[names.index(LOGITS)].shape[-1] if LOGITS in names else None
        super().__init__(
            card, name=str(self.path), flip=flip, batch_size=batch_size, nhwc=nhwc, pixels=pixels,
            identities=identities_of(metadata.get(IDENTITIES_KEY), classes, str(self.path)),
        )  # fmt: skip
        fixed = inputs[0].shape[0]
        self._fixed = fixed if isinstance(fixed, int) else None
        if self._fixed is not None:
            self.batch_size = self._fixed

    @property
    def output_name(self) -> str:
        """What the graph calls its embedding."""
        return self._output

    def run(self, x: npt.NDArray[Any]) -> Float[npt.NDArray[np.float32], "N D"]:
        """One batch in the graph's own layout -> raw features (N, D)."""
        x, count = self._filled(x), len(x)
        return self.checked(self._output_of(self._output, x), len(x))[:count]

    def run_logits(self, x: npt.NDArray[Any]) -> Float[npt.NDArray[np.float32], "N C"]:
        """One batch in the graph's own layout -> logits (N, C)."""
        return np.asarray(self._output_of(LOGITS, self._filled(x)), np.float32)[: len(x)]

    def _filled(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A batch as long as a graph of fixed batch wants it."""
        if self._fixed is None or len(x) >= self._fixed:
            return x
        return np.concatenate([x, np.zeros((self._fixed - len(x), *x.shape[1:]), x.dtype)])

    def _output_of(self, name: str, x: npt.NDArray[Any]) -> Any:
        try:
            return self.session.run([name], {self._input: x})[0]
        except Exception as error:  # ONNX Runtime raises bare subclasses of Exception of its own
            raise DataError(f"{self.path}: ONNX Runtime refused the crops: {first_line(error)}") from error


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


def listed(inputs: list[Any]) -> str:
    """A graph's inputs in words, the first few where there are many."""
    said = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs[:_LISTED]) or "none"
    return said if len(inputs) <= _LISTED else f"{said} and {len(inputs) - _LISTED} more"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else error.__class__.__name__
