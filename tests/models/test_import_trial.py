"""An import tried on generated people: the right reading passes, a wrong one is refused with what to type."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.models import import_trial
from visavis.models.import_trial import auc, try_readings
from visavis.synthetic import generate
from visavis.vision.preprocessing import PreprocessSpec

TOLD = PreprocessSpec(size=(112, 112))


@pytest.fixture(autouse=True)
def _drawn_once(monkeypatch, faces):
    monkeypatch.setattr(import_trial, "generate", lambda *_, **__: faces)


@pytest.fixture(scope="module")
def faces():
    return generate(import_trial.SEED, range(24), import_trial.IMAGES, size=112, workers=0)


def recognizer(x):
    """Pixels of [−1, 1] in blocks of 14, the middle of the face; saturates outside as a trained network does."""
    blocks = np.clip(x, -1, 1).reshape(len(x), 3, 8, 14, 8, 14).mean((3, 5))
    return (blocks - blocks.mean((2, 3), keepdims=True)).reshape(len(x), -1)


def test_auc_by_hand():
    similarity = np.array([[1, 0.9, 0.5, 0.2], [0.9, 1, 0.4, 0.5], [0.5, 0.4, 1, 0.5], [0.2, 0.5, 0.5, 1]])
    # genuine 0.9 and 0.5; impostor 0.5, 0.2, 0.4, 0.5: 4 wins, and 2 wins and 2 ties
    assert auc(similarity, np.array([0, 0, 1, 1])) == (4 + 2 + 2 * 0.5) / 8
    assert auc(np.ones((4, 4)), np.array([0, 0, 1, 1])) == 0.5


def test_the_right_reading_passes():
    trial = try_readings(recognizer, TOLD)
    trial.require()
    assert trial.better is None
    assert trial.people == 24
    assert trial.told.auc > 0.6
    assert {reading.words for reading in trial.others} == {
        "pixels in [0, 1]", "pixels as they are", "ImageNet's mean and deviation", "BGR channels",
        "the sphereface template",
    }  # fmt: skip


def test_raw_pixels_for_a_network_of_small_ones_are_refused_with_what_to_type():
    trial = try_readings(recognizer, PreprocessSpec(size=(112, 112), mean=(0.0,) * 3, std=(1.0,) * 3))
    assert trial.better is not None
    with pytest.raises(
        ModelFormatError, match=r"AUC 0\.\d+ as told, 0\.\d+ with pixels in .*--preprocess .*std=.*--as-told"
    ):
        trial.require()


def test_a_norm_is_no_embedding():
    trial = try_readings(lambda x: np.linalg.norm(recognizer(x), axis=1, keepdims=True), TOLD)
    with pytest.raises(ModelFormatError, match=r"AUC 0\.500 as told and 0\.50\d at best.*no embeddings of faces"):
        trial.require()


def test_a_slow_network_sees_fewer_people_and_readings():
    trial = try_readings(recognizer, TOLD, seconds=0.0)
    assert trial.people == 10
    assert trial.untried
    assert not trial.others


def test_features_that_are_none(recwarn):
    with pytest.raises(ModelFormatError, match="not finite"):
        try_readings(lambda x: recognizer(x) * np.nan, TOLD)
    with pytest.raises(ModelFormatError, match=r"expected features \(8, D\), got \(8,\)"):
        try_readings(lambda x: recognizer(x)[:, 0], TOLD)


def graph(path, *, norm_first=False, batch="N"):
    """`recognizer` as an ONNX graph, with the norm of its features as another output."""
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("AveragePool", ["c"], ["p"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("GlobalAveragePool", ["p"], ["m"]),
        helper.make_node("Sub", ["p", "m"], ["s"]),
        helper.make_node("Flatten", ["s"], ["feature"]),
        helper.make_node("ReduceL2", ["feature"], ["norm"], axes=[1], keepdims=1),
    ]
    outputs = [
        helper.make_tensor_value_info("feature", TensorProto.FLOAT, [batch, 192]),
        helper.make_tensor_value_info("norm", TensorProto.FLOAT, [batch, 1]),
    ]
    values = [helper.make_tensor(n, TensorProto.FLOAT, [], [v]) for n, v in (("low", -1.0), ("high", 1.0))]
    model = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 112, 112])],
            outputs[::-1] if norm_first else outputs, values,
        ),
        opset_imports=[helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_a_graph_is_tried_and_its_output_chosen_as_typed(tmp_path, capsys, batch, faces):
    out = tmp_path / "model"
    words = ["import", str(graph(tmp_path / "g.onnx", norm_first=True, batch=batch)), "--out", str(out)]
    words += ["--preprocess", "mean=127.5,std=127.5"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "no embeddings of faces" in said
    assert "its outputs: norm, feature (--output)" in said
    assert not out.exists()
    assert main([*words, "--output", "featur"]) == 2
    assert "did you mean 'feature'" in capsys.readouterr().err
    assert main([*words, "--output", "feature"]) == 0
    said = capsys.readouterr().out
    assert "tried on 24 generated people: AUC 0." in said
    assert "output feature; other outputs unused: norm" in said
    assert json.loads((out / "card.json").read_text())["embedding_dim"] == 192
    from visavis.models.load import load_embedder

    rows = load_embedder(out).embed(faces[0][:2])
    expected = recognizer((faces[0][:2].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5)
    np.testing.assert_allclose(rows, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)


def test_a_wrong_range_of_a_graph_leaves_nothing_behind_and_is_kept_when_asked(tmp_path, capsys):
    out = tmp_path / "model"
    words = ["import", str(graph(tmp_path / "g.onnx")), "--out", str(out), "--preprocess", "mean=0,std=1"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "with --preprocess " in said
    assert "std=1," not in said
    assert not out.exists()
    assert main([*words, "--as-told"]) == 0
    assert "tried" not in capsys.readouterr().out
    assert (out / "model.onnx").is_file()
