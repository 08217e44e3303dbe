"""ONNX graphs that visavis did not write."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from visavis.models.card import ModelCard
from visavis.vision.preprocessing import PreprocessSpec


def tiny(path, *, size=(16, 16), dim=4, card=None, batch="batch", columns=None):
    """An ONNX recognizer without torch: mean of each channel, times a matrix; float N×3×H×W, already normalized."""
    rng = np.random.default_rng(0)
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, *size])
    made = helper.make_tensor_value_info("features", TensorProto.FLOAT, [batch, columns or dim])
    weight = numpy_helper.from_array(rng.normal(size=(3, dim)).astype(np.float32), "w")
    axes = numpy_helper.from_array(np.array([2, 3]), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["features"]),
    ]
    graph = helper.make_graph(nodes, "tiny", [given], [made], [weight, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if card is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "visavis.card", card.to_json()
    onnx.save(model, path)
    return numpy_helper.to_array(weight)


def card_of(size=(16, 16), dim=4, **spec):
    return ModelCard("tiny", "onnx", dim, PreprocessSpec(size, **spec))


def crops(count=5, size=(16, 16)):
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3), np.uint8)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)
