"""Export a model: write the artifact aside, run it in its own runtime against the weights, only then let it in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from visavis.data.validate.trained_on import read_trained_on
from visavis.errors import DataError, ModelFormatError, RecipeError
from visavis.export.formats.base import Format, Options, Precision, ProgressCallback
from visavis.export.formats.registry import load_format
from visavis.export.gates.accuracy import difference, evaluate_pairs
from visavis.export.gates.classifier import compare_logits
from visavis.export.gates.parity import TOLERANCES, Crops, Parity, compare, require, require_steady_scores
from visavis.export.model import ExportModel
from visavis.files import digest_of, take_default_mode
from visavis.models.card import ONNX, ModelCard, read_card, write_card
from visavis.models.onnx import OnnxEmbedder
from visavis.types import Embedder


@dataclass(frozen=True)
class Exported:
    """A finished export: its main file, what the card now says of it, and the parity it passed."""

    path: Path
    record: dict[str, Any]
    parity: Parity
    notes: list[str] = field(default_factory=list)


def default_name(kind: Format, precision: Precision) -> str:
    """model.onnx, model.int8.onnx, model.fp16.xml ..."""
    return f"model{'' if precision == 'fp32' else '.' + precision}{kind.suffix}"


def export_model(
    model: ExportModel,
    format_name: str,
    crops: Crops,
    *,
    out: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    progress: ProgressCallback = lambda _: None,
) -> Exported:
    """Export a model and prove the artifact.

    The artifact is written into a folder aside, loaded by its own runtime and compared with the weights on `crops`;
    when a pair set is given both are judged on it too. Only an artifact that passes is moved to its place; figures go
    into its metadata and into the card of the model folder.

    Args:
        model: from `open_model`.
        format_name: a key of FORMATS.
        crops: for the parity check.
        out: file to write; the model folder's `model...` when None.
        options: precision, input, calibration ...
        progress: called with a line for each step.

    Raises:
        ModelFormatError: the parity or accuracy gate failed, an operator is not supported, a runtime is missing.
        DataError: the file cannot be written.
    """
    kind, options = load_format(format_name), options or Options()
    if isinstance(model.reference, OnnxEmbedder):  # a graph's input is what it is
        options = replace(options, pixels=model.reference.pixels)  # pyright: ignore[reportArgumentType]
    if options.precision not in kind.precisions:
        raise RecipeError(
            f"--format {format_name} has precisions {', '.join(kind.precisions)}, got {options.precision}"
        )
    kind.check_runtime()
    target = Path(out) if out is not None else model.home / default_name(kind, options.precision)
    if target.suffix != kind.suffix:
        raise RecipeError(f"--out: a file of --format {format_name} ends in {kind.suffix}, got {target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(prefix=".visavis-export-", dir=target.parent)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot write the export ({error.strerror})") from error
    with aside as folder:
        return _export(model, kind, crops, target, Path(folder), options, progress)


def _export(
    model: ExportModel,
    kind: Format,
    crops: Crops,
    target: Path,
    aside: Path,
    options: Options,
    progress: ProgressCallback,
) -> Exported:
    part = aside / target.name
    progress(f"writing {kind.name} {options.precision}")
    reference_accuracy = None
    if options.pairs is not None:
        reference_accuracy = evaluate_pairs(_judged_as(model), options.pairs, trained_on=read_trained_on(model.home))
    made = kind.write(model, part, options, reference_accuracy, progress)
    candidate = kind.load(part)
    progress(f"comparing on {len(crops.images)} crops of {crops.origin}")
    parity = compare(model.reference, candidate, crops, tolerance=TOLERANCES[options.precision], runtime=kind.runtime())
    what = f"{kind.name} {options.precision}"
    require(parity, what=what, image=target.with_name(target.stem + ".worst.png"))
    if options.precision == "int8" and options.pairs is None:
        require_steady_scores(parity, what=what)
    classified = compare_logits(model.logits, candidate, crops, precision=options.precision, what=what)
    record: dict[str, Any] = {
        "format": kind.name,
        "precision": options.precision,
        "input": options.pixels,
        "flip": model.card.preprocess.flip,
        "weights_digest": model.card.weights_digest,
        "parity": parity.to_dict(),
        **({"classifier": classified} if classified else {}),
        **made.facts,
    }
    if options.pairs is not None and reference_accuracy is not None:
        progress(f"judging on {len(options.pairs):,} pairs")
        record["accuracy"] = difference(
            reference_accuracy, made.accuracy or evaluate_pairs(candidate, options.pairs), options.pairs
        )
        _require_accuracy(record["accuracy"], options)
    kind.stamp(part, model.card.with_changes(exports={target.name: record}), options)
    files = [p for p in sorted(aside.iterdir()) if p.name.startswith(target.stem)]
    record["bytes"] = sum(p.stat().st_size for p in files)
    del candidate
    try:
        for file in files:
            take_default_mode(file)
            file.replace(target.with_name(file.name))
    except OSError as error:
        raise DataError(f"{target}: cannot write the export ({error.strerror})") from error
    record["digest"] = digest_of(target)
    _record(model, target, record)
    return Exported(target, record, parity, made.notes)


def _judged_as(model: ExportModel) -> Embedder:
    """What stands for the weights on a pair set: their own fp32 ONNX export if it passed the gate, being faster."""
    record = model.card.exports.get(ONNX, {})
    if model.folder is None or model.network is None or not isinstance(record, dict):
        return model.reference
    path = model.folder / ONNX
    same = record.get("weights_digest") == model.card.weights_digest and record.get("precision") == "fp32"
    if not (same and record.get("flip") == model.card.preprocess.flip and path.is_file()):
        return model.reference
    passed = record.get("parity", {}).get("max_1_minus_cos", 1.0) <= TOLERANCES["fp32"]
    return OnnxEmbedder(path) if passed and record.get("digest") == digest_of(path) else model.reference


def _require_accuracy(found: Mapping[str, Any], options: Options) -> None:
    budget = options.max_drop
    if budget is not None and found["points_lost"] > budget + 1e-9:
        raise ModelFormatError(
            f"{options.precision} loses {found['points_lost']:.2f} points on {found['pairs']:,} pairs "
            f"({100 * found['reference_accuracy']:.2f} to {100 * found['accuracy']:.2f} %), allowed are {budget:g}; "
            "no file was written; calibrate on pictures like those it will see: --calibrate SRC"
        )


def _record(model: ExportModel, target: Path, record: dict[str, Any]) -> None:
    """Tell the model folder's card of the export, if that is where it went."""
    if model.folder is None or target.parent.resolve() != model.folder.resolve():
        return
    card: ModelCard = read_card(model.folder)
    if model.file is not None and target.resolve() == model.file.resolve():
        card = replace(card, weights_digest=record["digest"])
    write_card(model.folder, card.with_changes(exports={**card.exports, target.name: record}))
