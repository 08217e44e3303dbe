"""PReLU written as convolutions."""

import numpy as np
import pytest
from onnx import helper
from onnx_graphs import build, run

from visavis.export.onnx.prelu import rewrite_prelu


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
