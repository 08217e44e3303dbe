"""Lengths of raw features: XNorm of row A6, weighting by norm, and both from the cache."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.evaluate import evaluate
from visavis.evaluate.cache import EmbeddingCache
from visavis.evaluate.embedding import embed_images
from visavis.evaluate.presets import xnorm
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.template_verification import video_protocol
from visavis.types import Pairs

PICTURES = 40


class Brightness:
    """A feature whose length grows with contrast; counts the pictures it is shown."""

    dim = 4

    def __init__(self):
        self.seen = 0
        self.mixing = np.random.default_rng(0).normal(size=(48, 4))

    def views(self, crops):
        x = crops.astype(np.float64) - 127.5
        return [v.reshape(len(crops), -1) @ self.mixing for v in (x, x[:, :, ::-1])]

    def measure(self, crops):
        self.seen += len(crops)
        views = self.views(crops)
        return sum(views).astype(np.float32), np.mean([np.linalg.norm(v, axis=1) for v in views], axis=0)

    def embed(self, crops):
        rows, _ = self.measure(crops)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def world():
    rng = np.random.default_rng(1)
    images = {f"p{i // 4}/{i % 4}.png": rng.integers(0, 256, (4, 4, 3)).astype(np.uint8) for i in range(PICTURES)}
    a = np.repeat(np.arange(PICTURES - 1), 2)
    b = (a + np.tile([1, 7], PICTURES - 1)) % PICTURES
    return images, Pairs(tuple(images), a, b, a // 4 == b // 4, np.arange(len(a)) % 10)


def test_xnorm_is_the_mean_over_both_views_of_every_listed_picture():
    """Written as insightface's verification.test loops over its two embedding lists."""
    images, pairs = world()
    embedder = Brightness()
    stored = np.stack(
        [images[pairs.images[i]] for pair in zip(pairs.reference, pairs.probe, strict=True) for i in pair]
    )
    total, count = 0.0, 0
    for embeddings in embedder.views(stored):
        for row in embeddings:
            total += np.linalg.norm(row)
            count += 1
    report = evaluate(embedder, pairs, images, settings=EvaluationSettings(preset="arcface", bootstrap=0))
    assert report.results["preset"]["xnorm"] == pytest.approx(total / count, rel=1e-6)
    assert f"{total / count:.3f}"[:-1] in str(report)
    assert "XNorm" in report.to_html()


def test_xnorm_leaves_out_what_was_not_acquired_and_may_be_unknown():
    lengths = np.array([1.0, 3.0, np.nan])
    assert xnorm(lengths, np.array([0, 0]), np.array([1, 2])) == pytest.approx(5 / 3, abs=1e-12)
    assert xnorm(lengths[2:], np.array([0]), np.array([0])) is None

    class Unit(Brightness):
        measure = None

        def embed(self, crops):
            rows = sum(self.views(crops)).astype(np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    del Unit.measure
    unit = type("Unit", (), {"dim": 4, "embed": Unit.embed, "views": Brightness.views, "mixing": Brightness().mixing})()
    images, pairs = world()
    report = evaluate(unit, pairs, images, settings=EvaluationSettings(preset="arcface", bootstrap=0))
    assert report.results["preset"]["xnorm"] is None
    assert "XNorm is not known" in str(report)
    with pytest.raises(ProtocolError, match="leave --norms out"):
        embed_images(unit, pairs.images, images, norms=True)


@pytest.mark.parametrize("asked_first", [False, True])
def test_norms_come_from_the_cache_too(tmp_path, asked_first):
    images, pairs = world()
    first = embed_images(
        Brightness(), pairs.images, images, cache=EmbeddingCache(tmp_path, model="m", dim=4), norms=asked_first
    )
    second, third = Brightness(), Brightness()
    again = embed_images(second, pairs.images, images, cache=EmbeddingCache(tmp_path, model="m", dim=4), norms=True)
    assert second.seen == (0 if asked_first else PICTURES)
    last = embed_images(third, pairs.images, images, cache=EmbeddingCache(tmp_path, model="m", dim=4), norms=True)
    assert third.seen == 0
    np.testing.assert_array_equal(again.norms, last.norms)
    np.testing.assert_array_equal(again.view_norms, last.view_norms)
    np.testing.assert_allclose(first.vectors, last.vectors, atol=1e-6)
    expected = np.linalg.norm(Brightness().measure(np.stack(list(images.values())))[0], axis=1)
    np.testing.assert_allclose(last.norms, expected, rtol=1e-6)


def test_videos_weighted_by_norm_are_sums_of_raw_features():
    images, _ = world()
    names = list(images)
    videos = {f"v{k}": names[4 * k : 4 * k + 4] for k in range(10)}
    a = np.arange(20) % 10
    b = (a + np.where(np.arange(20) < 10, 1, 3)) % 10
    pairs = Pairs(tuple(videos), a, b, np.arange(20) < 10, np.arange(20) % 2)
    embedder = Brightness()
    protocol = video_protocol(videos, pairs, name="v", use_norms=True)
    report = evaluate(embedder, protocol, images, settings=EvaluationSettings(bootstrap=0))
    raw = {v: embedder.measure(np.stack([images[n] for n in frames]))[0].sum(axis=0) for v, frames in videos.items()}
    unit = np.stack([raw[v] / np.linalg.norm(raw[v]) for v in videos])
    np.testing.assert_allclose(report.scores["similarity"], (unit[a] * unit[b]).sum(axis=1), atol=1e-5)
