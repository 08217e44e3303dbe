"""evaluate(): every picture once, failures counted and listed, scores saved before figures, JSON as the design says."""

import json

import numpy as np
import pytest

from visavis.errors import DataError, ProtocolError
from visavis.evaluate import evaluate, verify_pairs
from visavis.evaluate.cache import EmbeddingCache
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.score_files import load_scores
from visavis.types import Pairs


class FakeEmbedder:
    """The mean color of a crop, centered, as a unit vector; counts what it is asked."""

    dim = 3

    def __init__(self):
        self.seen = 0

    def embed(self, crops):
        self.seen += len(crops)
        rows = crops.reshape(len(crops), -1, 3).mean(axis=1) - 127.5
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(identities=20, pictures=4, seed=0):
    """Pictures of noisy colors and 10 folds of pairs."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(30, 226, (identities, 3))
    images = {}
    for i in range(identities):
        for p in range(pictures):
            crop = colors[i] + rng.normal(0, 25, 3) + rng.normal(0, 3, (8, 8, 3))
            images[f"id{i}/id{i}_{p}.jpg"] = np.clip(crop, 0, 255).astype(np.uint8)
    names = tuple(images)
    rows = []
    for k in range(300):
        i, j = rng.choice(identities, 2, replace=False)
        a, b = rng.choice(pictures, 2, replace=False)
        rows.append(
            (i * pictures + a, i * pictures + b, True) if k % 2 else (i * pictures + a, j * pictures + b, False)
        )
    reference, probe, genuine = (np.array(c) for c in zip(*rows, strict=True))
    return images, Pairs(names, reference, probe, genuine.astype(bool), np.arange(300) * 10 // 300)


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


def test_cache_embeds_each_content_once_and_survives_damage(tmp_path):
    images, pairs = world()
    first = FakeEmbedder()
    a = evaluate(first, pairs, images, cache=EmbeddingCache(tmp_path, model="m", dim=3))
    second = FakeEmbedder()
    b = evaluate(second, pairs, images, cache=EmbeddingCache(tmp_path, model="m", dim=3))
    assert second.seen == 0
    assert a.results == b.results
    assert b.context["seconds"]["cached_embeddings"] == len(images)
    assert len(EmbeddingCache(tmp_path, model="another", dim=3)) == 0
    (file,) = tmp_path.glob("*.npz")
    file.write_bytes(file.read_bytes()[:200])
    assert len(EmbeddingCache(tmp_path, model="m", dim=3)) == 0


def test_a_stopped_run_keeps_what_it_embedded(tmp_path):
    images, pairs = world()
    names = list(pairs.images)

    def read(name):
        if name == names[50]:
            raise KeyboardInterrupt
        return images[name]

    with pytest.raises(KeyboardInterrupt):
        evaluate(FakeEmbedder(), pairs, read, batch_size=16, cache=EmbeddingCache(tmp_path, model="m", dim=3))
    assert len(EmbeddingCache(tmp_path, model="m", dim=3)) == 48


def test_scores_that_are_no_npz_are_refused(tmp_path):
    bad = tmp_path / "scores.npz"
    bad.write_bytes(b"not a zip")
    with pytest.raises(ProtocolError, match="expected the scores"):
        load_scores(bad)
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ProtocolError, match="expected the scores"):
        load_scores(tmp_path / "pickled.npz")


def test_bootstrap_can_be_left_out():
    images, pairs = world()
    report = evaluate(FakeEmbedder(), pairs, images, settings=EvaluationSettings(bootstrap=0))
    assert report.results["subject_bootstrap"] is None
