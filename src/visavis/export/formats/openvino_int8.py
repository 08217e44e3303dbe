"""int8 for OpenVINO, by NNCF: weights per channel, activations per tensor, biases corrected."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visavis.export.formats.base import ExportInfo, Options, ProgressCallback
from visavis.export.formats.float_graph import float_onnx
from visavis.export.formats.onnx_int8 import layout
from visavis.export.gates.parity import Crops, crops_of
from visavis.export.gates.sensitivity import describe, rank_layers, satisfy_accuracy_budget
from visavis.export.model import ExportModel
from visavis.export.onnx.graph import makers_of
from visavis.export.onnx.to_openvino import convert, save, set_card
from visavis.export.quiet import replaced
from visavis.models.graph import LOGITS
from visavis.models.openvino import OpenVinoEmbedder
from visavis.runtimes import import_runtime
from visavis.types import Embedder


def _hidden(bar: Callable[..., Any]) -> Callable[..., Any]:
    """NNCF's progress bar, not shown."""
    return lambda *columns, **settings: bar(*columns, **settings | {"disable": True})


def write_int8_openvino(
    model: ExportModel,
    path: Path,
    options: Options,
    reference_accuracy: dict[str, Any] | None,
    progress: ProgressCallback,
) -> ExportInfo:
    """Quantize with NNCF and keep sensitive layers in float until the accuracy budget holds."""
    nncf, bars = import_runtime("nncf"), import_runtime("nncf.common.logging.track_progress")
    crops: Crops = options.calibration or crops_of(None, model.card.preprocess, count=300, seed=1)
    graph = float_onnx(model, options)
    batch = layout(model, crops.images, options.pixels)
    classifier = makers_of(graph, LOGITS) if model.identities else []  # as in onnx_int8.py
    rows = [batch[i : i + 1] for i in range(len(batch))]

    def build(float_layers: list[str]) -> tuple[Path, Embedder]:
        # OpenVINO calls the convolution of ONNX's `name` either so or `name/WithoutBiases`.
        patterns = [f"{re.escape(name)}(/.*)?" for name in (*classifier, *float_layers)]
        ignored = nncf.IgnoredScope(patterns=patterns, validate=False) if patterns else None
        with replaced(bars, Progress=_hidden(bars.Progress), WeightedProgress=_hidden(bars.WeightedProgress)):
            made = nncf.quantize(
                convert(graph),
                nncf.Dataset(rows),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(rows),
                ignored_scope=ignored,
            )
        set_card(made, model.card, pixels=options.pixels, identities=model.identities)
        save(made, path)
        return path, OpenVinoEmbedder(path, batch_size=32)

    progress(f"quantizing, calibrated on {len(rows)} crops of {crops.origin}")
    _, float_layers, accuracy = satisfy_accuracy_budget(
        build,
        lambda: rank_layers(graph, batch[:16]),
        reference_accuracy=reference_accuracy,
        pairs=options.pairs,
        max_drop=options.max_drop,
        progress=progress,
    )
    facts = {
        "calibration": {"crops": len(rows), "from": crops.origin, "ranges": "nncf mixed"},
        "in_float": float_layers,
    }
    notes = [f"calibrated on {len(rows)} crops of {crops.origin}", f"left in float: {describe(float_layers)}"]
    return ExportInfo(facts, notes, accuracy)
