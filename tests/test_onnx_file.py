"""ONNX files simplified without the package onnx, against that package's own evaluator."""

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from visavis.errors import ModelFormatError, VisavisError
from visavis.onnx_file import simplified
from visavis.runtimes import onnx_session


def quantized(shape, *, axis, block, kind=np.int8, zero=True, inputs=()):
    """A model that adds a dequantized constant of `shape` to x, with further `inputs` declared."""
    rng = np.random.default_rng(0)
    parts = tuple(-(-side // block) if i == axis else side for i, side in enumerate(shape)) if block else (shape[axis],)
    low = np.iinfo(kind)
    constants = [
        numpy_helper.from_array(rng.integers(low.min, low.max, shape).astype(kind), "w_q"),
        numpy_helper.from_array(rng.uniform(0.01, 0.1, parts).astype(np.float32), "w_scale"),
        numpy_helper.from_array(np.array([-1, int(np.prod(shape))]), "flat"),
    ]
    if zero:
        constants.append(numpy_helper.from_array(rng.integers(low.min, low.max, parts).astype(kind), "w_zero"))
    names = ["w_q", "w_scale", "w_zero"][: 2 + zero]
    nodes = [
        helper.make_node("DequantizeLinear", names, ["w"], axis=axis, **({"block_size": block} if block else {})),
        helper.make_node("Reshape", ["w", "flat"], ["w_flat"]),
        helper.make_node("Add", ["x", "w_flat"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, int(np.prod(shape))])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, int(np.prod(shape))])
    more = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs]
    graph = helper.make_graph(nodes, "g", [x, *more], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize(("shape", "axis", "block"), [((4, 6), 1, 3), ((4, 7), 1, 3), ((6, 4), 0, 2), ((3, 5), 0, 0)])
def test_quantized_constants_become_what_the_specification_says(shape, axis, block, kind, zero):
    """Whole blocks, a last block that is shorter, an axis; with and without zero points."""
    model = quantized(shape, axis=axis, block=block, kind=kind, zero=zero)
    made = onnx.load_from_string(simplified(model.SerializeToString()))
    onnx.checker.check_model(made)
    assert [node.op_type for node in made.graph.node] == ["Add"]
    assert [tensor.name for tensor in made.graph.initializer] == ["w_flat"]
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scale, offset = values["w_scale"], values.get("w_zero", np.zeros_like(values["w_scale"]))
    plain = np.empty(shape, np.float32)
    for index in np.ndindex(shape):
        at = tuple(v // block if i == axis else v for i, v in enumerate(index)) if block else (index[axis],)
        plain[index] = (np.float32(values["w_q"][index]) - np.float32(offset[at])) * scale[at]
    assert np.array_equal(numpy_helper.to_array(made.graph.initializer[0]).ravel(), plain.ravel())


def test_inputs_that_nobody_feeds_are_none():
    """Read by no node, made by a node, or an initializer: none of them is asked for."""
    model = quantized((4, 6), axis=1, block=3, inputs=("w", "w_q", "nobody"))
    made = simplified(model.SerializeToString())
    session = onnx_session(made, threads=1)
    assert [entry.name for entry in session.get_inputs()] == ["x"]
    x = np.ones((1, 24), np.float32)
    expected = ReferenceEvaluator(quantized((4, 6), axis=1, block=3)).run(None, {"x": x})[0]
    assert np.allclose(session.run(None, {"x": x})[0], expected, atol=1e-6)


def test_what_only_an_inner_graph_reads_stays():
    """A branch of If reads an initializer of the graph around it."""
    then = helper.make_graph(
        [helper.make_node("Identity", ["kept"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2])],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["kept"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, [2])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("nobody", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "kept")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnx_session(simplified(model.SerializeToString()), threads=1)
    assert [entry.name for entry in session.get_inputs()] == ["c"]
    assert session.run(None, {"c": np.array(False)})[0].tolist() == [-1, -2]


def test_a_plain_graph_is_left_as_it_is():
    """Byte for byte."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    data = helper.make_model(graph).SerializeToString()
    assert simplified(data) is data


@pytest.mark.parametrize(("name", "shape"), [("w_scale", (4, 3)), ("w_zero", (1, 2)), ("flat", (3,))])
def test_weights_that_contradict_their_shape_are_refused(name, shape):
    """Scales for other blocks, zero points for other rows, a reshape to another count."""
    model = quantized((4, 6), axis=1, block=3)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            kind = numpy_helper.to_array(tensor).dtype
            tensor.CopyFrom(numpy_helper.from_array(np.full(shape, 7, kind), name))
    with pytest.raises(ModelFormatError, match="damaged: "):
        simplified(model.SerializeToString())


_GOOD = quantized((4, 7), axis=1, block=3, inputs=("w",)).SerializeToString()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(_GOOD) - 1), st.integers(0, 255), st.booleans())
def test_damaged_files_end_in_a_message(at, byte, cut):
    """Whatever byte changed and wherever the file ends: a result, or an error of ours; never another exception."""
    data = _GOOD[:at] if cut else _GOOD[:at] + bytes([byte]) + _GOOD[at + 1 :]
    with contextlib.suppress(VisavisError):
        simplified(data)


def test_an_input_is_declared_anew():
    """A graph for one picture takes any number of them."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Neg", ["z"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        value_info=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = simplified(model.SerializeToString(), inputs={"x": ("batch", 3)})
    onnx.checker.check_model(onnx.load_from_string(made), full_check=True)
    session = onnx_session(made, threads=1)
    assert session.get_outputs()[0].shape[1] == 3
    assert session.get_inputs()[0].shape == ["batch", 3]
    assert session.run(None, {"x": np.ones((4, 3), np.float32)})[0].tolist() == [[-1] * 3] * 4
