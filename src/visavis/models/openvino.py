"""Exported OpenVINO models (and .onnx files, if asked for) as Embedders, without torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError
from visavis.machine import usable_cores
from visavis.models.card import CARD, ModelCard, read_card
from visavis.models.graph import CARD_KEY, IDENTITIES_KEY, INPUT_KEY, LOGITS, GraphEmbedder, check_card, identities_of
from visavis.runtimes import import_runtime
from visavis.vision.preprocessing import Flip

if TYPE_CHECKING:
    from jaxtyping import Float


class OpenVinoEmbedder(GraphEmbedder):
    """An OpenVINO `.xml` or an `.onnx` file run by OpenVINO on the CPU.

    Batches of 1 and of `batch_size` run through models compiled for just that size, others through one of any size.

    Args:
        path: the file; its runtime information (or ONNX metadata) holds the model card.
        flip: overrides the card's, where the graph fuses nothing itself.
        batch_size: crops at once.
        threads: of inference; the usable cores when None.
        precision: what the CPU may compute in: f32, or bf16 where it has instructions for it.

    Raises:
        ModelFormatError: a damaged file, no card, or a card its graph contradicts.
        MissingPackageError: OpenVINO is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        flip: Flip | None = None,
        batch_size: int = 64,
        threads: int | None = None,
        precision: str = "f32",
    ) -> None:
        openvino = import_runtime("openvino")
        self.path = Path(path)
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(os.fspath(self.path))
        except Exception as error:  # OpenVINO raises RuntimeError and its children
            raise ModelFormatError(
                f"{self.path}: OpenVINO cannot read it, damaged or not a model: {_cause(error)}"
            ) from error
        metadata = _metadata(self._model, self.path)
        card = _card(self.path, metadata)
        first, made = self._model.inputs[0], self._model.outputs[0]
        shape = [d.get_length() if d.is_static else None for d in first.get_partial_shape()]
        columns = made.get_partial_shape()[-1]
        nhwc, pixels = first.get_element_type().get_type_name() == "u8", INPUT_KEY in metadata
        check_card(
            str(self.path), card, shape, columns.get_length() if columns.is_static else None, nhwc=nhwc, pixels=pixels
        )
        self._logits = next((i for i, o in enumerate(self._model.outputs) if LOGITS in o.get_names()), None)
        classes = None if self._logits is None else self._model.outputs[self._logits].get_partial_shape()[-1]
        known = classes.get_length() if classes is not None and classes.is_static else None
        super().__init__(
            card, name=str(self.path), flip=flip, batch_size=batch_size, nhwc=nhwc, pixels=pixels,
            identities=identities_of(metadata.get(IDENTITIES_KEY), known, str(self.path)),
        )  # fmt: skip
        self._config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self._config["INFERENCE_NUM_THREADS"] = usable_cores() if threads is None else int(threads)
        self._requests: dict[int, Any] = {}

    def _request(self, count: int) -> Any:
        """An inference request for batches of `count`, compiled on first use."""
        key = count if count in (1, self.batch_size) else 0
        if key not in self._requests:
            model = self._model.clone()
            if key:
                shape = model.inputs[0].get_partial_shape()
                shape[0] = key
                model.reshape(shape)
            self._requests[key] = self._core.compile_model(model, "CPU", self._config).create_infer_request()
        return self._requests[key]

    def run(self, x: npt.NDArray[Any]) -> Float[npt.NDArray[np.float32], "N D"]:
        """One batch in the graph's own layout -> raw features (N, D)."""
        try:
            request = self._request(len(x))
            if len(x) == 1:  # written in place: handing an array over takes longer than copying one picture
                request.get_input_tensor().data[...] = x
                request.infer(share_outputs=True)
            else:
                request.infer({0: x}, share_inputs=True, share_outputs=True)
            feature = request.get_output_tensor(0).data
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{self.path}: OpenVINO refused the crops: {_cause(error)}") from error
        return self.checked(np.array(feature), len(x))  # a copy: the request writes there again

    def run_logits(self, x: npt.NDArray[Any]) -> Float[npt.NDArray[np.float32], "N C"]:
        """One batch in the graph's own layout -> logits (N, C)."""
        self.run(x)
        return np.array(self._request(len(x)).get_output_tensor(self._logits).data, np.float32)


def _cause(error: BaseException) -> str:
    """What OpenVINO says last; the lines before name places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else error.__class__.__name__


def _metadata(model: Any, path: Path) -> dict[str, str]:
    """What `visavis export` stored: OpenVINO's runtime information, or the metadata of an ONNX file."""
    if path.suffix == ".onnx":
        from visavis.models.onnx import open_session

        return dict(open_session(path).get_modelmeta().custom_metadata_map)
    found: dict[str, str] = {}
    for key in (CARD_KEY, INPUT_KEY, IDENTITIES_KEY):
        where = key.split(".")
        if model.has_rt_info(where):
            found[key] = str(model.get_rt_info(where).value)
    return found


def _card(path: Path, metadata: dict[str, str]) -> ModelCard:
    if CARD_KEY in metadata:
        return ModelCard.from_json(metadata[CARD_KEY], name=f"{path} ({CARD_KEY})")
    if (path.parent / CARD).is_file() and (card := read_card(path.parent)).backbone == "onnx":
        return card
    raise ModelFormatError(
        f"{path}: carries no model card; only files of visavis export --format openvino are models here"
    )
