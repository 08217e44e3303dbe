from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCalibrater

from visavis.backbones import build_backbone
from visavis.errors import ModelFormatError, RecipeError
from visavis.export.formats.base import Options
from visavis.export.formats.float_graph import float_onnx
from visavis.export.formats.onnx_int8 import calibrate
from visavis.export.gates.parity import compare, crops_of, require_steady_scores
from visavis.export.gates.sensitivity import hold_budget, layers_of, rank_layers
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.metrics.similarity import unit_rows
from visavis.models.card import ModelCard, read_card
from visavis.models.onnx import OnnxEmbedder
from visavis.models.torch import save_model
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec((32, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("int8") / "model"
    network = build_backbone("small", size=(32, 32), dim=32, width=32).eval()
    save_model(path, network, ModelCard("m", "small", 32, SPEC, backbone_args={"width": 32}))
    return path


@pytest.fixture(scope="module")
def faces():
    return crops_of(None, SPEC, count=24)


@pytest.mark.parametrize(
    "ranges", ["moving", *(pytest.param(r, marks=pytest.mark.slow) for r in ("minmax", "entropy", "percentile"))]
)
def test_int8_onnx_is_small_and_close(folder, faces, ranges, tmp_path):
    options = Options(precision="int8", calibration=faces, ranges=ranges)
    done = export_model(open_model(folder), "onnx", faces, out=tmp_path / "m.onnx", options=options)
    assert done.parity.distances.mean() < 0.02
    assert done.record["calibration"] == {"crops": 24, "from": "generated faces, seed 0", "ranges": ranges}
    assert done.record["bytes"] < 0.32 * (folder / "weights.safetensors").stat().st_size
    import onnx

    kinds = {t.data_type for t in onnx.load(done.path).graph.initializer if len(t.dims) == 4 and t.dims[0] > 1}
    assert kinds == {onnx.TensorProto.INT8}


def test_int8_openvino_is_small_and_close(folder, faces):
    pytest.importorskip("nncf")
    done = export_model(open_model(folder), "openvino", faces, options=Options(precision="int8", calibration=faces))
    assert done.path.name == "model.int8.xml"
    assert done.parity.distances.mean() < 0.02
    assert read_card(folder).exports["model.int8.xml"]["in_float"] == []


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


def test_layers_are_ranked_by_the_damage_they_do(folder, faces):
    graph = float_onnx(open_model(folder), Options())
    names = [node.name for node in layers_of(graph)]
    assert len(names) == 9
    ruined = next(node for node in graph.graph.node if node.name == names[3])
    weight = next(t for t in graph.graph.initializer if t.name == ruined.input[1])
    from onnx import numpy_helper

    value = numpy_helper.to_array(weight).copy()
    value[:, 0, 0, 0] *= 500  # one huge value per channel leaves nothing for the others
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    ranked = rank_layers(graph, faces.pictures[:4])
    assert sorted(ranked) == sorted(names)
    assert ranked[0] == names[3]


class Judged:
    def __init__(self, accuracy):
        self.accuracy = accuracy


def test_layers_return_to_float_until_the_budget_holds(monkeypatch):
    tried = []

    def build(in_float):
        tried.append(list(in_float))
        return len(in_float), Judged(0.98 - 0.01 / (1 + len(in_float)) ** 2)

    monkeypatch.setattr("visavis.export.gates.sensitivity.judge", lambda embedder, _: {"accuracy": embedder.accuracy})
    arguments = {"before": {"accuracy": 0.98}, "pairs": object(), "say": lambda _: None}
    artifact, kept, _ = hold_budget(build, lambda: list("abcdefgh"), max_drop=0.1, **arguments)
    assert tried == [[], ["a"], ["a", "b"], ["a", "b", "c", "d"]]
    assert (artifact, kept) == (4, ["a", "b", "c", "d"])
    with pytest.raises(ModelFormatError, match="whatever stays in float"):
        hold_budget(build, lambda: list("ab"), max_drop=0.001, **arguments)


def test_what_a_format_cannot_do_is_said(folder, faces):
    with pytest.raises(RecipeError, match="mindir has precisions fp32"):
        export_model(open_model(folder), "mindir", faces, options=Options(precision="int8"))
    with pytest.raises(ModelFormatError, match="unknown --ranges 'entropi'; did you mean 'entropy'"):
        export_model(open_model(folder), "onnx", faces, options=Options(precision="int8", ranges="entropi"))
    with pytest.raises(RecipeError, match="did you mean 'openvino'"):
        export_model(open_model(folder), "openvno", faces)
    with pytest.raises(RecipeError, match=r"ends in \.onnx, got m\.xml"):
        export_model(open_model(folder), "onnx", faces, out=folder / "m.xml")


def test_int8_runs_at_any_batch(folder, faces, tmp_path):
    options = Options(precision="int8", calibration=faces)
    done = export_model(open_model(folder), "onnx", faces, out=tmp_path / "m.onnx", options=options)
    together = OnnxEmbedder(done.path, batch_size=8).embed(faces.pictures[:8])
    alone = OnnxEmbedder(done.path, batch_size=1).embed(faces.pictures[:8])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_broken_int8_is_refused_without_pairs_too(folder, faces, tmp_path):
    """Ranges learned on black pictures cut what faces need; the old bound, 1 − cos of 0.2, is not what finds it."""
    black = replace(faces, pictures=np.zeros_like(faces.pictures[:10]), names=faces.names[:10])
    with pytest.raises(ModelFormatError) as refused:
        export_model(
            open_model(folder), "onnx", faces, out=tmp_path / "m.onnx",
            options=Options(precision="int8", calibration=black),
        )  # fmt: skip
    assert "no file was written" in str(refused.value)
    assert not (tmp_path / "m.onnx").exists()
    few = replace(faces, pictures=faces.pictures[:2], names=faces.names[:2])
    with pytest.raises(ModelFormatError, match="pairs of 2 crops"):
        export_model(
            open_model(folder), "onnx", few, out=tmp_path / "m.onnx", options=Options("int8", calibration=faces)
        )


def test_score_noise_is_the_shift_of_pairs_in_parts_of_their_spread(faces):
    rng = np.random.default_rng(0)
    a = unit_rows(rng.normal(size=(24, 8)))
    b = unit_rows(a + 0.1 * rng.normal(size=(24, 8)))

    class Given:
        def __init__(self, rows):
            self.rows, self.dim = rows, 8

        def embed(self, crops):
            return self.rows

    s, t = (np.array([x[i] @ x[j] for i in range(24) for j in range(i)]) for x in (a, b))
    found = compare(Given(a), Given(b), faces, tolerance=1.0)
    assert found.score_noise == pytest.approx(np.sqrt(((t - s) ** 2).mean()) / s.std())
    require_steady_scores(found, what="it")
    apart = compare(Given(a), Given(a[::-1]), faces, tolerance=1.0)
    with pytest.raises(ModelFormatError, match="--pairs FILE"):
        require_steady_scores(apart, what="it")
    assert compare(Given(a), Given(a), faces, tolerance=1.0).score_noise == 0
