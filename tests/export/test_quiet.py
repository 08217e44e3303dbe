"""Quantizers say much; what they say is kept, and what the process itself prints or logs is not touched."""

import logging
import types

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from visavis.export.formats.onnx_int8 import calibrate, quantize
from visavis.export.quiet import replaced, root_logger, told


def one_convolution():
    weight = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["embedding"], "conv")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 1, 4, 4])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Talking(list):
    """Batches of which the process tells when they are read."""

    def __iter__(self):
        print("mine")
        return super().__iter__()


@pytest.mark.parametrize("ranges", ["moving", "percentile", "entropy"])
def test_the_process_keeps_its_output_and_its_root_logger(capsys, monkeypatch, ranges):
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    monkeypatch.setattr(root, "setLevel", lambda level: pytest.fail("the root logger is the user's"))
    batches = Talking(np.random.default_rng(0).normal(size=(3, 2, 3, 4, 4)).astype(np.float32))
    model = one_convolution()
    made = quantize(model, calibrate(model, batches, ranges), float_layers=[])
    assert {node.op_type for node in made.graph.node} >= {"Conv", "QuantizeLinear"}
    assert capsys.readouterr().out == "mine\n"
    assert (root.level, list(root.handlers)) == before


def test_names_are_given_back_whatever_happens():
    module = types.ModuleType("other")
    module.logging = logging

    def fails():
        with replaced(module, print=told, logging=root_logger):
            assert module.print is told
            module.print("a", 1)
            module.logging.warning("%s of %d", "b", 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert module.logging is logging
    assert not hasattr(module, "print")
