import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from visavis.export.onnx.compact import compact

CHANNELS = 24


def quantized(bias_scale=None):
    """x -> Q -> DQ -> Conv of int8 weights and int32 bias -> Q -> DQ, as the quantizer writes it, twice."""
    rng = np.random.default_rng(0)
    x_scale = np.array(0.02, np.float32)
    constants = {"x_scale": x_scale, "x_zero": np.array(128, np.uint8)}
    nodes, value = [], "x"

    def pair(source, made, prefix):
        for kind, end in (("QuantizeLinear", "q"), ("DequantizeLinear", "d")):
            inputs = [source if end == "q" else f"{made}_q", f"{prefix}_scale", f"{prefix}_zero"]
            output = f"{made}_q" if end == "q" else made
            nodes.append(helper.make_node(kind, inputs, [output], name=f"a_long_name_of_{kind}_{made}"))

    for i in range(2):
        weight_scale = rng.uniform(0.001, 0.01, CHANNELS).astype(np.float32)
        constants |= {
            f"w{i}": rng.integers(-127, 128, (CHANNELS, CHANNELS, 1, 1), np.int8),
            f"w{i}_scale": weight_scale,
            f"w{i}_zero": np.zeros(CHANNELS, np.int8),
            f"b{i}": rng.integers(-5000, 5000, CHANNELS, np.int32),
            f"b{i}_scale": x_scale * weight_scale if bias_scale is None else bias_scale(weight_scale),
            f"b{i}_zero": np.zeros(CHANNELS, np.int32),
        }
        pair(value, f"x{i}", "x")
        for part in ("w", "b"):
            inputs = [f"{part}{i}", f"{part}{i}_scale", f"{part}{i}_zero"]
            nodes.append(
                helper.make_node("DequantizeLinear", inputs, [f"{part}{i}_d"], axis=0, name=f"long_{part}{i}_name")
            )
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}_d", f"b{i}_d"], [f"y{i}"], name=f"layer{i}"))
        value = f"y{i}"
    pair(value, "y", "x")
    shape = ["N", CHANNELS, 2, 2]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def outputs_of(model):
    x = np.random.default_rng(1).normal(size=(3, CHANNELS, 2, 2)).astype(np.float32)
    return InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def sizes(model):
    return {t.name: tuple(t.dims) for t in model.graph.initializer}


def test_a_compact_graph_computes_the_same_from_fewer_constants():
    model = quantized()
    before, bytes_before, constants = outputs_of(model), model.ByteSize(), len(model.graph.initializer)
    made = compact(model)
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_array_equal(outputs_of(made), before)
    # Zero points of weights and of biases are one each, the biases' scales are none.
    assert len(made.graph.initializer) == constants - 2 - 2
    assert sum(n.op_type == "Mul" for n in made.graph.node) == 2
    assert [n.name for n in made.graph.node if n.op_type == "Conv"] == ["layer0", "layer1"]
    gone = CHANNELS * (4 + 4 + 4 + 1)  # two float scales, an int32 and an int8 zero point
    assert made.ByteSize() < bytes_before - gone


def test_the_runtime_still_finds_integer_convolutions(tmp_path):
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    InferenceSession(compact(quantized()).SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("QLinearConv") == 2
    assert "Mul" not in kinds


@pytest.mark.parametrize("factor", [1.01, 0.5])
def test_a_bias_scale_that_is_no_product_stays(factor):
    model = quantized(lambda weight_scale: np.float32(0.02 * factor) * weight_scale)
    made = compact(model)
    assert not [n for n in made.graph.node if n.op_type == "Mul"]
    assert list(sizes(made).values()).count((CHANNELS,)) == 8  # scales and biases, and one zero point of each type
