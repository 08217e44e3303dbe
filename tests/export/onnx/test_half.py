"""Half precision."""

import numpy as np
from onnx import TensorProto, helper
from onnx_graphs import build, run

from visavis.export.onnx.half import to_half


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
