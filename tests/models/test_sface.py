"""SFace's reader: the same numbers from the rewritten graph, whatever its slopes and readers."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from visavis.models.packaged import PACKAGED
from visavis.models.sface import fast_prelu, read_sface
from visavis.runtimes import onnx_session

FILE = PACKAGED["sface"].file
needs_file = pytest.mark.skipif(FILE.find() is None, reason="the extra pretrained is not installed")


def chain(slopes, *, bias=True, norm=True, twice=False):
    """Convolution, batch normalization, PReLU with these slopes, and a mean."""
    rng = np.random.default_rng(0)
    count = len(slopes)
    constants = {
        "w": rng.normal(size=(count, 3, 3, 3)),
        "c": rng.normal(size=count),
        "gain": rng.uniform(0.5, 2, count),
        "shift": rng.normal(size=count),
        "mean": rng.normal(size=count),
        "variance": rng.uniform(0.1, 2, count),
        "a": np.reshape(slopes, (-1, 1, 1)),
    }
    nodes = [helper.make_node("Conv", ["x", "w", "c"][: 2 + bias], ["y"], pads=[1] * 4)]
    if norm:
        names = ["y", "gain", "shift", "mean", "variance"]
        nodes.append(helper.make_node("BatchNormalization", names, ["z"], epsilon=1e-3))
    nodes += [
        helper.make_node("PRelu", ["z" if norm else "y", "a"], ["p"]),
        helper.make_node("Add", ["p", "y"], ["q"]) if twice else helper.make_node("Identity", ["p"], ["q"]),
        helper.make_node("GlobalAveragePool", ["q"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, count, 1, 1])],
        [_kept(name, value.astype(np.float32)) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _kept(name, value):
    """Weights as bytes, everything else as a list of floats: files hold both."""
    if name == "w":
        return numpy_helper.from_array(value, name)
    return helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.ravel().tolist())


@pytest.mark.parametrize("slopes", [[0.1, -0.5, 1.0, 0.0], [0.25, 1.5, -2.0, 3.0]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("twice", [True, False])
def test_the_rewritten_graph_gives_the_same_numbers(slopes, bias, norm, twice):
    """Slopes below and above one, with and without bias and normalization, a convolution that is read once more."""
    model = chain(slopes, bias=bias, norm=norm, twice=twice)
    made = onnx.load_from_string(fast_prelu(model.SerializeToString()))
    onnx.checker.check_model(made, full_check=True)
    kinds = [node.op_type for node in made.graph.node]
    assert ("PRelu" in kinds) == (norm and twice)
    assert ("BatchNormalization" in kinds) == (norm and twice)
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected, got = (onnx_session(m.SerializeToString(), threads=1).run(None, {"x": x})[0] for m in (model, made))
    assert np.allclose(got, expected, atol=1e-5)


@needs_file
def test_the_packaged_graph_is_the_published_one():
    """The file as it is, its false inputs fed with zeros, against what is read of it."""
    data = FILE.find().read_bytes()
    published, ours = onnx_session(data, threads=1), onnx_session(read_sface(data), threads=1)
    x = np.random.default_rng(0).uniform(0, 255, (1, 3, 112, 112)).astype(np.float32)
    zeros = {i.name: np.zeros(i.shape, np.float32) for i in published.get_inputs() if i.name != "data"}
    assert len(zeros) == 29
    theirs = published.run(None, {"data": x, **zeros})[0]
    both = ours.run(None, {"data": np.concatenate([x, x[..., ::-1]])})[0]
    assert [entry.name for entry in ours.get_inputs()] == ["data"]
    assert np.abs(both[0] - theirs[0]).max() < 1e-4 * np.abs(theirs).max()
    made = onnx.load_from_string(read_sface(data))
    onnx.checker.check_model(made, full_check=True)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds.count("Conv") == 27 * 3
    assert "PRelu" not in kinds
