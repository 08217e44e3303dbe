"""Graphs with short names."""

import numpy as np
from onnx import helper
from onnx_graphs import build, run

from visavis.export.onnx.graph import shorten


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
