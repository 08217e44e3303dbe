"""FORMATS: what can be exported, each with its writer, its own runtime, and where it keeps the card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visavis.errors import ModelFormatError
from visavis.models.card import ModelCard
from visavis.models.onnx import OnnxEmbedder
from visavis.runtimes import import_runtime
from visavis.types import Embedder

if TYPE_CHECKING:
    import onnx

    from visavis.export.model import ExportModel
    from visavis.export.pipeline import Options, ProgressCallback


@dataclass(frozen=True)
class ExportInfo:
    """What a writer has to say: facts for the card, lines for the user, its judgement on the pairs if it has one."""

    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    judged: dict[str, Any] | None = None


Writer = Callable[["ExportModel", Path, "Options", "dict[str, Any] | None", "ProgressCallback"], ExportInfo]


@dataclass(frozen=True)
class Format:
    """One export format."""

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Writer
    load: Callable[[Path], Embedder]
    runtime: Callable[[], str]
    stamp: Callable[[Path, ModelCard, Options], None]
    check_runtime: Callable[[], Any] = lambda: None


def plain_onnx(model: ExportModel, options: Options) -> onnx.ModelProto:
    """The float32 graph all formats start from: PReLU as PRelu, BatchNorm folded."""
    from visavis.export.onnx.batchnorm_folding import fold_batch_norms
    from visavis.export.onnx.files import read_onnx

    if model.network is None:
        assert model.file is not None
        return fold_batch_norms(read_onnx(model.file))
    from visavis.export.formats.onnx import make_onnx

    return make_onnx(
        model.network,
        model.card,
        pixels=options.pixels,
        exporter=options.exporter,
        opset=options.opset,
        batch=options.batch,
    )


def _write_onnx(
    model: ExportModel, path: Path, options: Options, before: dict[str, Any] | None, say: ProgressCallback
) -> ExportInfo:
    from visavis.export.onnx.files import write_onnx
    from visavis.export.onnx.prelu import rewrite_prelu

    if options.precision == "int8":
        from visavis.export.formats.onnx_int8 import write_int8_onnx

        return write_int8_onnx(model, path, options, before, say)
    graph = rewrite_prelu(plain_onnx(model, options))
    if options.precision == "fp16":
        from visavis.export.onnx.half import to_half

        graph = to_half(graph)
    write_onnx(path, graph)
    facts = {"opset": graph.opset_import[0].version}
    return ExportInfo(facts if model.network is None else {**facts, "exporter": options.exporter})


def _stamp_onnx(path: Path, card: ModelCard, options: Options) -> None:
    from visavis.export.onnx.files import read_onnx, set_metadata, write_onnx

    graph = read_onnx(path)
    set_metadata(graph, card, pixels=options.pixels)
    write_onnx(path, graph)


def _onnxruntime() -> str:
    return f"ONNX Runtime {import_runtime('onnxruntime').__version__}"


def _write_openvino(
    model: ExportModel, path: Path, options: Options, before: dict[str, Any] | None, say: ProgressCallback
) -> ExportInfo:
    from visavis.export.formats.openvino import convert, save, set_card

    if options.precision == "int8":
        from visavis.export.formats.openvino_int8 import write_int8_openvino

        return write_int8_openvino(model, path, options, before, say)
    converted = convert(plain_onnx(model, options))
    set_card(converted, model.card, pixels=options.pixels)
    save(converted, path, half=options.precision == "fp16")
    return ExportInfo()


def _stamp_openvino(path: Path, card: ModelCard, options: Options) -> None:
    from visavis.export.formats.openvino import restamp

    restamp(path, card, pixels=options.pixels)


def _load_openvino(path: Path) -> Embedder:
    from visavis.models.openvino import OpenVinoEmbedder

    return OpenVinoEmbedder(path, batch_size=32)


def _openvino() -> str:
    return f"OpenVINO {import_runtime('openvino').__version__.split('-')[0]}"


def _write_mindir(
    model: ExportModel, path: Path, options: Options, before: dict[str, Any] | None, say: ProgressCallback
) -> ExportInfo:
    from visavis.export.formats.mindir import write_mindir

    return write_mindir(model, path, options, before, say)


def _load_mindir(path: Path) -> Embedder:
    from visavis.export.formats.mindir import MindirEmbedder

    return MindirEmbedder(path)


def _mindspore() -> str:
    from visavis.export.formats.mindir import import_mindspore

    return f"MindSpore {import_mindspore().__version__}"


def _stamp_mindir(path: Path, card: ModelCard, options: Options) -> None:
    from visavis.export.formats.mindir import write_side_card

    write_side_card(path, card, options)


def _write_program(
    model: ExportModel, path: Path, options: Options, before: dict[str, Any] | None, say: ProgressCallback
) -> ExportInfo:
    from visavis.export.formats.torch_program import write_program

    return write_program(model, path, options, before, say)


def _load_program(path: Path) -> Embedder:
    from visavis.export.formats.torch_program import ProgramEmbedder

    return ProgramEmbedder(path)


def _stamp_program(path: Path, card: ModelCard, options: Options) -> None:
    from visavis.export.formats.torch_program import stamp_program

    stamp_program(path, card, options)


def _torch() -> str:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModelFormatError(
            "--format torch needs torch, which is not installed; pip install 'visavis[train]'"
        ) from error
    return f"torch {torch.__version__}"


FORMATS: dict[str, Format] = {
    "onnx": Format(
        "onnx", ".onnx", ("fp32", "fp16", "int8"), _write_onnx, OnnxEmbedder, _onnxruntime, _stamp_onnx
    ),
    "openvino": Format(
        "openvino", ".xml", ("fp32", "fp16", "int8"), _write_openvino, _load_openvino, _openvino, _stamp_openvino,
        check_runtime=_openvino,
    ),
    "mindir": Format(
        "mindir", ".mindir", ("fp32",), _write_mindir, _load_mindir, _mindspore, _stamp_mindir, check_runtime=_mindspore
    ),
    "torch": Format(
        "torch", ".pt2", ("fp32",), _write_program, _load_program, _torch, _stamp_program, check_runtime=_torch
    ),
}  # fmt: skip
