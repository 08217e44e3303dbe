"""evaluate(): every picture once, failures counted and listed, scores saved before figures, JSON as the design says."""

import json

import numpy as np
import pytest
from fake_embedders import FakeEmbedder, world

from visavis.errors import DataError, ProtocolError
from visavis.evaluate import evaluate, verify_pairs
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.score_files import load_scores


def test_report_has_the_contract_and_the_same_figures_as_the_arrays(tmp_path):
    images, pairs = world()
    embedder, steps = FakeEmbedder(), []
    path = tmp_path / "scores.npz"
    report = evaluate(embedder, pairs, images, scores=path, progress=lambda *s: steps.append(s), baseline=True)
    assert embedder.seen == len(images)
    assert steps[-1] == (len(images), len(images))
    body = json.loads(report.to_json())
    for key in ("protocol", "model", "comparisons", "accuracy", "auc", "eer", "tmr_at_fmr", "threshold"):
        assert key in body
    assert set(body["accuracy"]) >= {"mean", "std", "interval"}
    low, high = body["accuracy"]["interval"]
    assert low < body["accuracy"]["mean"] < high
    again = verify_pairs(embedder.embed(np.stack([images[n] for n in pairs.images])), pairs)
    assert body["accuracy"]["mean"] == again.accuracy
    assert body["auc"] == again.auc
    saved = load_scores(path)
    np.testing.assert_array_equal(saved["similarity"], again.similarities)
    assert body["baseline"]["raw pixels"]["accuracy"]["mean"] > 0.5
    text = str(report)
    assert "TMR at FMR 1e-1" in text
    assert "not supported" in text
    for row in ("equal error rate", "area under the ROC", "d′", "threshold of best accuracy"):
        assert row in text
    assert "rest on fewer than 10 false matches: FMR 1e-2 (1);" in text
    boot = body["subject_bootstrap"]
    assert boot["subjects"] == 20
    assert boot["accuracy_interval"][0] < body["accuracy"]["mean"] < boot["accuracy_interval"][1]


def test_unreadable_pictures_are_counted_listed_and_never_match():
    images, pairs = world()

    def read(name):
        if name == "id3/id3_1.jpg":
            raise DataError(f"{name}: truncated")
        return images[name]

    body = json.loads(evaluate(FakeEmbedder(), pairs, read).to_json())
    assert body["failures_to_acquire"]["images"] == 1
    assert "truncated" in body["failures_to_acquire"]["reasons"]["id3/id3_1.jpg"]
    index = pairs.images.index("id3/id3_1.jpg")
    touched = (pairs.reference == index) | (pairs.probe == index)
    assert body["comparisons"]["failed_to_acquire"] == touched.sum() > 0
    assert body["comparisons"]["total"] == len(pairs)


def test_a_picture_of_another_shape_that_the_model_refuses_is_one_failure():
    images, pairs = world()

    class Strict(FakeEmbedder):
        def embed(self, crops):
            if crops.shape[1:3] != (8, 8):
                raise DataError(f"the network wants 8×8, got {crops.shape}")
            return super().embed(crops)

    odd = dict(images) | {"id3/id3_1.jpg": np.zeros((9, 7, 3), np.uint8)}
    body = evaluate(Strict(), pairs, odd, batch_size=16).to_dict()
    assert list(body["failures_to_acquire"]["reasons"]) == ["id3/id3_1.jpg"]
    with pytest.raises(DataError, match="8×8"):
        evaluate(Strict(), pairs, lambda _: np.zeros((9, 7, 3), np.uint8))


def test_nothing_readable_is_an_error_that_names_the_first():
    _, pairs = world()
    with pytest.raises(ProtocolError, match=r"any of 80; the first, id0/id0_0.jpg: not among"):
        evaluate(FakeEmbedder(), pairs, {})


def test_bootstrap_can_be_left_out():
    images, pairs = world()
    report = evaluate(FakeEmbedder(), pairs, images, settings=EvaluationSettings(bootstrap=0))
    assert report.results["subject_bootstrap"] is None
