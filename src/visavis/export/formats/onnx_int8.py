"""int8 for ONNX Runtime: static QDQ quantization, weights per channel, activation ranges from calibration crops."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from visavis.errors import ModelFormatError, unknown_name
from visavis.export.formats.base import ExportInfo, Options, ProgressCallback
from visavis.export.formats.float_graph import float_onnx
from visavis.export.gates.parity import Crops, crops_of
from visavis.export.gates.sensitivity import describe, rank_layers, satisfy_accuracy_budget
from visavis.export.model import ExportModel
from visavis.export.onnx.compact import compact
from visavis.export.onnx.files import Input, set_metadata, write_onnx
from visavis.export.onnx.graph import Array, makers_of
from visavis.export.quiet import replaced, root_logger, told
from visavis.models.graph import LOGITS, GraphEmbedder
from visavis.models.onnx import OnnxEmbedder
from visavis.runtimes import import_runtime
from visavis.types import ByteArray

_quantization = import_runtime("onnxruntime.quantization")
_Method = _quantization.CalibrationMethod
_calibration = import_runtime("onnxruntime.quantization.calibrate")
CALIBRATION_METHODS = {
    "minmax": (_Method.MinMax, {}),
    "moving": (_Method.MinMax, {"moving_average": True}),
    "entropy": (_Method.Entropy, {"num_bins": 512, "num_quantized_bins": 256}),  # 128 of 128 leave no choice
    "percentile": (_Method.Percentile, {"percentile": 99.99}),
}
QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "Relu", "LeakyRelu")


def layout(model: ExportModel, crops: ByteArray, pixels: Input) -> Array:
    """Crops (N, H, W, 3) as the graph takes them."""
    if isinstance(model.reference, GraphEmbedder):
        return model.reference.layout(crops)
    return crops if pixels == "uint8" else np.ascontiguousarray(crops.transpose(0, 3, 1, 2), np.float32)


class _Reader(_quantization.CalibrationDataReader):
    def __init__(self, name: str, batches: list[Array]) -> None:
        self.feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Array] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self.feeds, None)


def calibrate(model: onnx.ModelProto, batches: list[Array], method: str) -> Any:
    """The range of every activation over calibration batches.

    Shapes: batches (N, ...).

    Args:
        model: the float32 graph.
        batches: crops in its own layout.
        method: minmax (extremes), moving (mean of the batches' extremes), entropy (Kullback–Leibler divergence of
            histograms) or percentile (99.99).

    Raises:
        ModelFormatError: unknown `method`.
    """
    if method not in CALIBRATION_METHODS:
        raise ModelFormatError(unknown_name("--calibration-method", method, CALIBRATION_METHODS))
    kind, extra = CALIBRATION_METHODS[method]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float.onnx"
        onnx.save(model, source)
        calibrator = _calibration.create_calibrator(
            source, list(QUANTIZED), str(Path(folder) / "augmented.onnx"), calibrate_method=kind, extra_options=extra
        )
        if calibrator is None:
            raise ModelFormatError("ONNX Runtime offers no calibrator")
        name = model.graph.input[0].name
        with replaced(_calibration, print=told):
            # A histogram calibrator keeps every activation of what one call reads.
            if isinstance(calibrator, _calibration.HistogramCalibrater):
                for batch in batches:
                    calibrator.collect_data(_Reader(name, [batch]))
            else:
                calibrator.collect_data(_Reader(name, batches))
            return calibrator.compute_data()


def quantize(model: onnx.ModelProto, ranges: Any, *, float_layers: list[str]) -> onnx.ModelProto:
    """QDQ: uint8 activations, int8 weights by channel, the named layers left in float32."""
    talkers = [import_runtime(f"onnxruntime.quantization.{name}_quantizer") for name in ("qdq", "onnx", "base")]
    with replaced(*talkers, logging=root_logger):
        quantizer = talkers[0].QDQQuantizer(
            onnx.ModelProto.FromString(model.SerializeToString()),
            True,
            False,
            _quantization.QuantType.QInt8,
            _quantization.QuantType.QUInt8,
            ranges,
            [],
            float_layers,
            list(QUANTIZED),
            {"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    made = quantizer.model.model
    del made.metadata_props[:]
    return made


def write_int8_onnx(
    model: ExportModel,
    path: Path,
    options: Options,
    reference_accuracy: dict[str, Any] | None,
    progress: ProgressCallback,
) -> ExportInfo:
    """Calibrate, quantize, and keep sensitive layers in float until the accuracy budget holds."""
    from visavis.export.onnx.prelu import rewrite_prelu

    crops: Crops = options.calibration or crops_of(None, model.card.preprocess, count=300, seed=1)
    graph = rewrite_prelu(float_onnx(model, options))
    layers = {node.name for node in graph.graph.node}
    if "" in layers:
        raise ModelFormatError("int8 needs a graph whose nodes have names; this one has nameless ones")
    count = len(crops.images)
    size = next(n for n in range(10, 0, -1) if count % n == 0)  # the histograms want batches of one size
    batches = [layout(model, crops.images[i : i + size], options.pixels) for i in range(0, count, size)]
    progress(f"calibrating on {len(crops.images)} crops of {crops.origin}")
    ranges = calibrate(graph, batches, options.calibration_method)

    # Ranges cut off the highest logits, where the decision is: they would all be equal.
    classifier = makers_of(graph, LOGITS) if model.identities else []

    def build(float_layers: list[str]) -> tuple[onnx.ModelProto, OnnxEmbedder]:
        made = compact(quantize(graph, ranges, float_layers=[*classifier, *float_layers]))
        set_metadata(made, model.card, pixels=options.pixels, identities=model.identities)
        write_onnx(path, made)
        return made, OnnxEmbedder(path)

    _, float_layers, accuracy = satisfy_accuracy_budget(
        build,
        lambda: rank_layers(graph, np.concatenate(batches)[:16]),
        reference_accuracy=reference_accuracy,
        pairs=options.pairs,
        max_drop=options.max_drop,
        progress=progress,
    )
    facts = {
        "opset": graph.opset_import[0].version,
        "calibration": {"crops": len(crops.images), "from": crops.origin, "ranges": options.calibration_method},
        "in_float": float_layers,
    }
    notes = [f"calibrated on {len(crops.images)} crops of {crops.origin}", f"left in float: {describe(float_layers)}"]
    return ExportInfo(facts, notes, accuracy)
