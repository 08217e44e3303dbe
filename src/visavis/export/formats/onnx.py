"""ONNX: fp32, fp16 (weights) and int8 (QDQ), run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visavis.export.formats.base import ExportInfo, Format, Options, ProgressCallback
from visavis.export.formats.float_graph import float_onnx
from visavis.export.model import ExportModel
from visavis.export.onnx.files import read_onnx, set_metadata, write_onnx
from visavis.export.onnx.prelu import rewrite_prelu
from visavis.models.card import ModelCard
from visavis.models.onnx import OnnxEmbedder
from visavis.runtimes import import_runtime


def write_onnx_format(
    model: ExportModel,
    path: Path,
    options: Options,
    reference_accuracy: dict[str, Any] | None,
    progress: ProgressCallback,
) -> ExportInfo:
    """The float32 graph, with fp16 weights if asked, or quantized."""
    if options.precision == "int8":
        from visavis.export.formats.onnx_int8 import write_int8_onnx

        return write_int8_onnx(model, path, options, reference_accuracy, progress)
    graph = rewrite_prelu(float_onnx(model, options))
    if options.precision == "fp16":
        from visavis.export.onnx.half import to_half

        graph = to_half(graph)
    if model.network is None:  # whose card may lie beside it, and not beside the file that is written aside
        set_metadata(graph, model.card, pixels=options.pixels)
    write_onnx(path, graph)
    facts = {"opset": graph.opset_import[0].version}
    return ExportInfo(facts if model.network is None else {**facts, "exporter": options.exporter})


def stamp_onnx(path: Path, card: ModelCard, options: Options) -> None:
    """Put the card into the file's metadata."""
    graph = read_onnx(path)
    set_metadata(graph, card, pixels=options.pixels)
    write_onnx(path, graph)


def onnxruntime_version() -> str:
    """Name and version of the runtime."""
    return f"ONNX Runtime {import_runtime('onnxruntime').__version__}"


FORMAT = Format(
    "onnx", ".onnx", ("fp32", "fp16", "int8"), write_onnx_format, OnnxEmbedder, onnxruntime_version, stamp_onnx
)
