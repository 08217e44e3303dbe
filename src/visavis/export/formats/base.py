"""What an export format is: the options it is asked with, what it writes, how its file is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from visavis.export.gates.accuracy import PairSet
from visavis.export.gates.parity import Crops
from visavis.export.model import ExportModel
from visavis.export.onnx.files import Exporter, Input
from visavis.models.card import ModelCard
from visavis.types import Embedder

Precision = Literal["fp32", "fp16", "int8"]
ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        precision: fp32, fp16 or int8.
        pixels: uint8 (N, H, W, 3) or float (N, 3, H, W), RGB 0–255.
        exporter: torchscript or dynamo.
        opset: 17 to 23.
        batch: a fixed batch; any when None.
        calibration: crops int8 ranges are taken from.
        pairs: a pair set to judge reference and export on.
        max_drop: points of accuracy int8 and fp16 may lose on `pairs`.
        calibration_method: how int8 activation ranges are found: minmax, moving, entropy or percentile.
    """

    precision: Precision = "fp32"
    pixels: Input = "uint8"
    exporter: Exporter = "torchscript"
    opset: int = 18
    batch: int | None = None
    calibration: Crops | None = None
    pairs: PairSet | None = None
    max_drop: float | None = None
    calibration_method: str = "moving"


@dataclass(frozen=True)
class ExportInfo:
    """What a writer has to say: facts for the card, lines for the user, its judgment on the pairs if it has one."""

    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    accuracy: dict[str, Any] | None = None


Writer = Callable[[ExportModel, Path, Options, "dict[str, Any] | None", ProgressCallback], ExportInfo]


@dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
        name: as `--format` says it.
        suffix: of the main file.
        precisions: fp32, fp16, int8, as far as there are.
        write: (model, path, options, reference_accuracy, progress) -> what there is to say of it.
        load: the written file in its own runtime.
        runtime: name and version of that runtime.
        stamp: put the card into a written file.
        check_runtime: raises where the runtime is missing, before anything is computed.
    """

    name: str
    suffix: str
    precisions: tuple[str, ...]
    write: Writer
    load: Callable[[Path], Embedder]
    runtime: Callable[[], str]
    stamp: Callable[[Path, ModelCard, Options], None]
    check_runtime: Callable[[], Any] = lambda: None
