"""The centered graph gives the rule's embeddings, whatever fuses the mirrored view, and is a model of its own."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from visavis.errors import DataError
from visavis.export import centered_model
from visavis.export.centered_model import graph_features, write_centered
from visavis.metrics.centering import centered, person_mean
from visavis.models.card import LicenseTerms, ModelCard, read_card, write_card
from visavis.models.load import load_embedder
from visavis.models.onnx import OnnxEmbedder
from visavis.vision.preprocessing import PreprocessSpec

RNG = np.random.default_rng(0)
CROPS = RNG.integers(0, 256, (24, 16, 16, 3), np.uint8)
LABELS = np.repeat(np.arange(8), 3)


def foreign(folder, *, flip, output="feature", logits=False):
    """A model folder around a graph of float N×3×16×16 that a stranger wrote; it adds no mirrored view."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], [output]),
    ]
    weights = np.random.default_rng(1).normal(0, 0.05, (768, 6)).astype(np.float32)
    initializers = [onnx.numpy_helper.from_array(weights, "w")]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 6])]
    if logits:
        nodes.append(helper.make_node("Relu", [output], ["other"]))
        outputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["n", 6]))
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        outputs,
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    spec = PreprocessSpec(size=(16, 16), flip=flip)
    terms = LicenseTerms(weights="Apache-2.0")
    card = ModelCard(
        "foreign", "onnx", 6, spec, license=terms, weights_digest="d" * 64, thresholds={"1e-3": {"threshold": 0.4}}
    )
    helper.set_model_props(model, {"visavis.card": card.to_json()})
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    (folder / "NOTICE.txt").write_text("keep me")
    write_card(folder, card)
    return folder


def adapted(folder, out):
    embedder = load_embedder(folder, runtime="onnxruntime")
    features = graph_features(embedder, CROPS)
    write_centered(embedder, features, LABELS, out, card=read_card(folder), try_on=CROPS[:4])
    return embedder, features


@pytest.mark.parametrize(
    "graph",
    [{}, {"logits": True}, {"output": "embedding"}],
    ids=["plain", "used", "named"],
)
def test_the_graph_gives_the_rule(tmp_path, graph):
    embedder, features = adapted(foreign(tmp_path / "m", flip="none", **graph), tmp_path / "out")
    wanted = centered(embedder.embed(CROPS), person_mean(features, LABELS))
    assert np.allclose(load_embedder(tmp_path / "out").embed(CROPS), wanted, atol=1e-5)
    assert abs((wanted @ wanted.T)[np.triu_indices(24, 1)].mean()) < 0.2
    found = onnx.load(tmp_path / "out" / "model.onnx")
    onnx.checker.check_model(found, full_check=True)
    assert len(found.graph.output) == 1


def test_mirrored_views_are_added_behind_it_as_before(tmp_path):
    folder = foreign(tmp_path / "m", flip="sum")
    _, features = adapted(folder, tmp_path / "out")
    plain = OnnxEmbedder(folder / "model.onnx", flip="none")
    views = [plain.embed(CROPS), plain.embed(np.ascontiguousarray(CROPS[:, :, ::-1]))]
    assert np.allclose(features, np.mean(views, axis=0), atol=1e-6)
    mean = person_mean(features, LABELS)
    wanted = sum(view - mean for view in views)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.allclose(load_embedder(tmp_path / "out").embed(CROPS), wanted, atol=1e-5)


def test_it_is_another_model_under_the_same_license(tmp_path):
    adapted(foreign(tmp_path / "m", flip="none"), tmp_path / "out")
    before, after = read_card(tmp_path / "m"), read_card(tmp_path / "out")
    assert after.weights_digest != before.weights_digest
    assert after.license == before.license
    assert after.thresholds == {}
    assert after.notes["centered"] == {"people": 8, "pictures": 24, "of": before.weights_digest}
    assert after.training_data.endswith("centered on 8 people")
    assert (tmp_path / "out" / "NOTICE.txt").read_text() == "keep me"
    assert load_embedder(tmp_path / "out").card == after


def test_a_graph_that_came_out_wrong_is_not_put_in_place(tmp_path, monkeypatch):
    folder = foreign(tmp_path / "m", flip="none")
    real = centered_model._centered_graph
    monkeypatch.setattr(centered_model, "_centered_graph", lambda e, mean, card: real(e, 1.01 * mean + 0.05, card))
    with pytest.raises(Exception, match="other embeddings than the rule"):
        adapted(folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_what_is_there_is_not_written_over(tmp_path):
    folder = foreign(tmp_path / "m", flip="none")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="is there already"):
        adapted(folder, tmp_path / "out")
