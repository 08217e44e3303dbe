import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCalibrater

from visavis.errors import ModelFormatError, RecipeError
from visavis.export.formats.base import Options
from visavis.export.formats.onnx_int8 import calibrate
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.onnx import OnnxEmbedder


@pytest.mark.parametrize(
    "ranges", ["moving", *(pytest.param(r, marks=pytest.mark.slow) for r in ("minmax", "entropy", "percentile"))]
)
def test_int8_onnx_is_small_and_close(small_folder, faces, ranges, tmp_path):
    options = Options(precision="int8", calibration=faces, calibration_method=ranges)
    done = export_model(open_model(small_folder), "onnx", faces, out=tmp_path / "m.onnx", options=options)
    assert done.parity.distances.mean() < 0.02
    assert done.record["calibration"] == {"crops": 24, "from": "generated faces, seed 0", "ranges": ranges}
    assert done.record["bytes"] < 0.32 * (small_folder / "weights.safetensors").stat().st_size
    import onnx

    kinds = {t.data_type for t in onnx.load(done.path).graph.initializer if len(t.dims) == 4 and t.dims[0] > 1}
    assert kinds == {onnx.TensorProto.INT8}


def one_convolution():
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 16, 16])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, 16, 16])],
            [numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )


def test_histograms_cut_outliers_and_keep_one_batch_at_a_time(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(10, 1, 16, 16)).astype(np.float32) for _ in range(4)]
    batches[1][0, 0, 0, 0] = 40.0
    kept = []
    collect = HistogramCalibrater.collect_data

    def counted(self, reader):
        feeds = list(reader.feeds)
        kept.append(sum(len(feed["x"]) for feed in feeds))
        reader.feeds = iter(feeds)
        collect(self, reader)

    monkeypatch.setattr(HistogramCalibrater, "collect_data", counted)
    tops = {
        ranges: np.max(calibrate(one_convolution(), batches, ranges)["x"].range_value[1])
        for ranges in ("minmax", "entropy", "percentile")
    }
    assert kept == [10] * 8
    assert tops["minmax"] == pytest.approx(40.0)
    assert 2 < tops["entropy"] < 20
    assert 2 < tops["percentile"] < 20
    assert capsys.readouterr().out == ""


def test_what_a_format_cannot_do_is_said(small_folder, faces):
    with pytest.raises(RecipeError, match="mindir has precisions fp32"):
        export_model(open_model(small_folder), "mindir", faces, options=Options(precision="int8"))
    with pytest.raises(ModelFormatError, match="unknown --calibration-method 'entropi'; did you mean 'entropy'"):
        export_model(
            open_model(small_folder), "onnx", faces, options=Options(precision="int8", calibration_method="entropi")
        )
    with pytest.raises(RecipeError, match="did you mean 'openvino'"):
        export_model(open_model(small_folder), "openvno", faces)
    with pytest.raises(RecipeError, match=r"ends in \.onnx, got m\.xml"):
        export_model(open_model(small_folder), "onnx", faces, out=small_folder / "m.xml")


def test_int8_runs_at_any_batch(small_folder, faces, tmp_path):
    options = Options(precision="int8", calibration=faces)
    done = export_model(open_model(small_folder), "onnx", faces, out=tmp_path / "m.onnx", options=options)
    together = OnnxEmbedder(done.path, batch_size=8).embed(faces.images[:8])
    alone = OnnxEmbedder(done.path, batch_size=1).embed(faces.images[:8])
    np.testing.assert_allclose(together, alone, atol=1e-5)
