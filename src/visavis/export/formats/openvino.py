"""OpenVINO: .xml and .bin in fp32, fp16 (weights) and int8 (NNCF), run by OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visavis.export.formats.base import ExportInfo, Format, Options, ProgressCallback
from visavis.export.formats.float_graph import float_onnx
from visavis.export.model import ExportModel
from visavis.export.onnx.to_openvino import convert, restamp, save, set_card
from visavis.models.card import ModelCard
from visavis.models.openvino import OpenVinoEmbedder
from visavis.runtimes import import_runtime
from visavis.types import Embedder


def write_openvino(
    model: ExportModel,
    path: Path,
    options: Options,
    reference_accuracy: dict[str, Any] | None,
    progress: ProgressCallback,
) -> ExportInfo:
    """The graph converted, with fp16 weights if asked, or quantized."""
    if options.precision == "int8":
        from visavis.export.formats.openvino_int8 import write_int8_openvino

        return write_int8_openvino(model, path, options, reference_accuracy, progress)
    converted = convert(float_onnx(model, options))
    set_card(converted, model.card, pixels=options.pixels, identities=model.identities)
    save(converted, path, half=options.precision == "fp16")
    return ExportInfo()


def stamp_openvino(path: Path, card: ModelCard, options: Options) -> None:
    """Put the card into the runtime information of the .xml."""
    restamp(path, card, pixels=options.pixels)


def load_openvino(path: Path) -> Embedder:
    """The written model in OpenVINO."""
    return OpenVinoEmbedder(path, batch_size=32)


def openvino_version() -> str:
    """Name and version of the runtime."""
    return f"OpenVINO {import_runtime('openvino').__version__.split('-')[0]}"


FORMAT = Format(
    "openvino", ".xml", ("fp32", "fp16", "int8"), write_openvino, load_openvino, openvino_version, stamp_openvino,
    check_runtime=openvino_version,
)  # fmt: skip
