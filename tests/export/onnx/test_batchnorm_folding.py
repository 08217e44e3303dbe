import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from visavis.export.onnx.batchnorm_folding import fold_batch_norms
from visavis.export.onnx.graph import shorten
from visavis.export.onnx.half import to_half
from visavis.export.onnx.prelu import rewrite_prelu


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def build(nodes, constants, inputs, outputs):
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
    graph = helper.make_graph(nodes, "g", made, given, [constant(n, v) for n, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def norm(rng, channels, prefix):
    return {
        f"{prefix}g": rng.uniform(0.5, 1.5, channels),
        f"{prefix}b": rng.normal(size=channels),
        f"{prefix}m": rng.normal(size=channels),
        f"{prefix}v": rng.uniform(0.5, 2, channels),
    }


@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("group", [1, 4])
def test_norm_before_a_convolution_becomes_a_bias_map(pad, stride, group):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 4 // group, 3, 3))
    out = [(9 + 2 * pad - 3) // stride + 1, (7 + 2 * pad - 3) // stride + 1]
    model = build(
        [
            helper.make_node("BatchNormalization", ["x", "ng", "nb", "nm", "nv"], ["n"]),
            helper.make_node(
                "Conv", ["n", "w", "b"], ["y"], pads=[pad] * 4, strides=[stride] * 2, group=group, kernel_shape=[3, 3]
            ),
        ],
        {**norm(rng, 4, "n"), "w": weight, "b": rng.normal(size=8)},
        {"x": ["N", 4, 9, 7]},
        {"y": ["N", 8, *out]},
    )
    x = rng.normal(size=(3, 4, 9, 7)).astype(np.float32)
    before = run(model, x)
    folded = fold_batch_norms(model)
    kinds = [node.op_type for node in folded.graph.node]
    assert kinds == (["Conv", "Add"] if pad else ["Conv"])
    np.testing.assert_allclose(run(folded, x), before, atol=2e-5)


def test_norms_behind_and_before_dense_layers():
    rng = np.random.default_rng(0)
    model = build(
        [
            helper.make_node("BatchNormalization", ["x", "ng", "nb", "nm", "nv"], ["n"]),
            helper.make_node("Flatten", ["n"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["d"]),
            helper.make_node("BatchNormalization", ["d", "kg", "kb", "km", "kv"], ["y"], epsilon=2e-5),
        ],
        {**norm(rng, 4, "n"), **norm(rng, 5, "k"), "w": rng.normal(size=(4 * 6, 5))},
        {"x": ["N", 4, 2, 3]},
        {"y": ["N", 5]},
    )
    x = rng.normal(size=(3, 4, 2, 3)).astype(np.float32)
    before = run(model, x)
    folded = fold_batch_norms(model)
    assert [node.op_type for node in folded.graph.node] == ["Flatten", "Gemm"]
    np.testing.assert_allclose(run(folded, x), before, atol=1e-4)


def test_a_shared_convolution_keeps_its_norm():
    rng = np.random.default_rng(0)
    model = build(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[1, 1]),
            helper.make_node("BatchNormalization", ["c", "ng", "nb", "nm", "nv"], ["n"]),
            helper.make_node("Add", ["c", "n"], ["y"]),
        ],
        {**norm(rng, 4, "n"), "w": rng.normal(size=(4, 2, 1, 1))},
        {"x": ["N", 2, 3, 3]},
        {"y": ["N", 4, 3, 3]},
    )
    x = rng.normal(size=(2, 2, 3, 3)).astype(np.float32)
    before = run(model, x)
    folded = fold_batch_norms(model)
    assert "BatchNormalization" in {node.op_type for node in folded.graph.node}
    np.testing.assert_allclose(run(folded, x), before, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(-2.0, 0.9), (-2.0, 3.0)])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("group", [1, 4])
def test_prelu_in_convolutions_is_the_same_function(low, high, ends, group):
    rng = np.random.default_rng(0)
    slope = np.concatenate([[low, high, 1.0], rng.uniform(low, high, 5)])
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("PRelu", ["c", "s"], ["p"]),
        helper.make_node("Conv", ["p", "v"], ["q"], kernel_shape=[3, 3], pads=[1] * 4, group=group),
    ]
    if ends:  # the activation is read elsewhere too, so its neighbors must stay as they are
        nodes.append(helper.make_node("Add", ["q", "p"], ["y"]))
    else:
        nodes[-1].output[0] = "y"
    model = build(
        nodes,
        {
            "w": rng.normal(size=(8, 2, 3, 3)),
            "b": rng.normal(size=8),
            "s": slope.reshape(8, 1, 1),
            "v": rng.normal(size=(8, 8 // group, 3, 3)),
        },
        {"x": ["N", 2, 6, 5]},
        {"y": ["N", 8, 6, 5]},
    )
    x = rng.normal(size=(3, 2, 6, 5)).astype(np.float32)
    before = run(model, x)
    rewritten = rewrite_prelu(model)
    assert "PRelu" not in {node.op_type for node in rewritten.graph.node}
    np.testing.assert_allclose(run(rewritten, x), before, rtol=1e-4, atol=1e-4)


def test_half_keeps_what_half_precision_cannot_hold():
    model = build(
        [helper.make_node("Mul", ["x", "a"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        {"a": np.linspace(0, 1, 100), "b": np.linspace(0, 1e6, 100)},
        {"x": ["N", 100]},
        {"y": ["N", 100]},
    )
    half = to_half(model)
    kinds = {t.name: t.data_type for t in half.graph.initializer}
    assert sorted(kinds.values()) == [TensorProto.FLOAT, TensorProto.FLOAT16]
    x = np.ones((2, 100), np.float32)
    np.testing.assert_allclose(
        run(half, x), np.linspace(0, 1, 100) + np.linspace(0, 1e6, 100)[None].repeat(2, 0), rtol=1e-3
    )


def test_short_names_change_nothing_else():
    rng = np.random.default_rng(0)
    model = build(
        [
            helper.make_node(
                "Conv", ["x", "a/very/long/name"], ["another/long/name"], kernel_shape=[1, 1], name="kept"
            ),
            helper.make_node("Clip", ["another/long/name", "", "highest"], ["y"]),
        ],
        {"a/very/long/name": rng.normal(size=(4, 2, 1, 1)), "highest": np.array(0.5)},
        {"x": ["N", 2, 3, 3]},
        {"y": ["N", 4, 3, 3]},
    )
    x = rng.normal(size=(2, 2, 3, 3)).astype(np.float32)
    before = run(model, x)
    short = shorten(model)
    np.testing.assert_array_equal(run(short, x), before)
    assert {t.name for t in short.graph.initializer} | {o for n in short.graph.node for o in n.output} == {
        "t3",
        "t4",
        "t5",
        "y",
    }
    assert [node.name for node in short.graph.node] == ["kept", ""]
