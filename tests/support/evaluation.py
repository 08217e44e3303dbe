"""A model for the tests that evaluate from the command line."""

import onnx
import pytest
from onnx import TensorProto, helper

from visavis.models.card import ModelCard, write_card
from visavis.vision.preprocessing import PreprocessSpec


def _color_model(folder):
    """A model folder whose ONNX file centers the mean color of a 16×16 crop."""
    spec = PreprocessSpec(size=(16, 16))
    card = ModelCard(name="colors", backbone="onnx", embedding_dim=3, preprocess=spec, weights_digest="d" * 64)
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
        helper.make_node("Sub", ["m", "gray"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("gray", TensorProto.FLOAT, [1], [127.5]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"visavis.card": card.to_json()})
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    write_card(folder, card)
    return folder


@pytest.fixture(scope="session")
def write_color_model():
    """folder -> a model folder, see `_color_model`."""
    return _color_model
