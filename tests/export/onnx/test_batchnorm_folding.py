import numpy as np
import pytest
from onnx import helper
from onnx_graphs import build, run

from visavis.export.onnx.batchnorm_folding import fold_batch_norms


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
