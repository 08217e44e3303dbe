"""The float32 graph that every format starts from."""

from __future__ import annotations

import onnx

from visavis.export.formats.base import Options
from visavis.export.model import ExportModel
from visavis.export.onnx.batchnorm_folding import fold_batch_norms
from visavis.export.onnx.files import read_onnx


def float_onnx(model: ExportModel, options: Options) -> onnx.ModelProto:
    """The float32 graph all formats start from: PReLU as PRelu, BatchNorm folded."""
    if model.network is None:
        assert model.file is not None
        return fold_batch_norms(read_onnx(model.file))
    from visavis.export.onnx.from_torch import make_onnx

    return make_onnx(
        model.network,
        model.card,
        pixels=options.pixels,
        exporter=options.exporter,
        opset=options.opset,
        batch=options.batch,
        classifier=model.classifier,
    )
