"""fp16: weights stored in half precision, arithmetic in the runtime's own; half the file at full speed on a CPU."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from visavis.export.onnx.graph import EditableGraph

_SMALLEST = 64  # biases, slopes and shapes gain nothing
_LARGEST = float(np.finfo(np.float16).max)


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store every large float32 constant as float16 behind a Cast, which runtimes fold away when they load the file.

    A constant beyond float16's range (65,504) stays as it is.

    Returns:
        The same model, edited in place.
    """
    graph = EditableGraph(model)
    for name, value in list(graph.constants.items()):
        if value.dtype != np.float32 or value.size < _SMALLEST or np.abs(value).max() > _LARGEST:
            continue
        half = graph.add_constant(f"{name}_half", value.astype(np.float16))
        cast = helper.make_node("Cast", [half], [f"{name}_full"], name=f"{name}_cast", to=TensorProto.FLOAT)
        graph.rename(name, f"{name}_full")
        graph.nodes.insert(0, cast)
    return graph.finish()
