"""OpenVINO from an ONNX graph."""

import logging

import numpy as np
import pytest
from onnx_graphs import graph_with

from visavis.errors import ModelFormatError


def ranges_around_a_convolution(openvino):
    """FakeQuantize -> convolution -> FakeQuantize, each range in four constants as NNCF writes it."""
    ops, rng = openvino.opset13, np.random.default_rng(0)

    def ranged(value, low, high):
        return ops.fake_quantize(value, *(np.float32(v) for v in (low, high, low, high)), 256)

    image = ops.parameter([-1, 3, 8, 8], np.float32, name="image")
    weight = rng.normal(size=(4, 3, 3, 3)).astype(np.float32)
    made = ops.convolution(ranged(image, -1, 1), weight, [1, 1], [1, 1], [1, 1], [1, 1], name="block/conv")
    made = ranged(made, -3, 5)
    made.output(0).get_tensor().set_names({"embedding"})
    model = openvino.Model([made], [image], "m")
    model.inputs[0].get_tensor().set_names({"image"})
    return model


def test_short_openvino_text_computes_the_same(tmp_path):
    openvino = pytest.importorskip("openvino")
    from visavis.export.onnx.to_openvino import save

    openvino.save_model(ranges_around_a_convolution(openvino), tmp_path / "long.xml", compress_to_fp16=False)
    model = ranges_around_a_convolution(openvino)
    model.set_rt_info('{"a": "<b> & \\"c\\" />"}\n', ["visavis", "card"])
    save(model, tmp_path / "short.xml")
    long, short = (openvino.Core().read_model(tmp_path / f"{name}.xml") for name in ("long", "short"))
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    before, after = (openvino.Core().compile_model(m, "CPU")({"image": x})["embedding"] for m in (long, short))
    np.testing.assert_array_equal(after, before)
    assert (tmp_path / "short.xml").stat().st_size < 0.6 * (tmp_path / "long.xml").stat().st_size
    assert short.get_rt_info(["visavis", "card"]).value == '{"a": "<b> & \\"c\\" />"}\n'
    kinds = [op.get_type_name() for op in short.get_ops()]
    assert kinds.count("Constant") == 5
    assert "block/conv" in {op.get_friendly_name() for op in short.get_ops()}


@pytest.mark.parametrize(("operator", "domain"), [("Det", ""), ("Fancy", "com.microsoft")])
def test_openvino_s_unknown_operator_is_named_with_its_layer(operator, domain):
    pytest.importorskip("openvino")
    from visavis.export.onnx.to_openvino import convert

    root = logging.getLogger()
    before = root.level, list(root.handlers)
    said = f"{domain}:{operator}" if domain else operator
    with pytest.raises(ModelFormatError, match=f"OpenVINO cannot convert the graph: operator {said} of layer block1/"):
        convert(graph_with(operator, domain))
    assert (root.level, list(root.handlers)) == before  # OpenVINO's converter would set it for the whole process
