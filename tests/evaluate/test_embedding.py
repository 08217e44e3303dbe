"""Lengths of raw features: XNorm of row A6, weighting by norm, and both from the cache."""

import numpy as np
import pytest
from fake_embedders import IMAGES, Brightness, contrast_world

from visavis.errors import ProtocolError
from visavis.evaluate import evaluate
from visavis.evaluate.cache import EmbeddingCache
from visavis.evaluate.embedding import embed_images
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.template_verification import video_protocol
from visavis.types import Pairs


@pytest.mark.parametrize("asked_first", [False, True])
def test_norms_come_from_the_cache_too(tmp_path, asked_first):
    images, pairs = contrast_world()
    first = embed_images(
        Brightness(), pairs.images, images, cache=EmbeddingCache(tmp_path, model="m", dim=4), norms=asked_first
    )
    second, third = Brightness(), Brightness()
    again = embed_images(second, pairs.images, images, cache=EmbeddingCache(tmp_path, model="m", dim=4), norms=True)
    assert second.seen == (0 if asked_first else IMAGES)
    last = embed_images(third, pairs.images, images, cache=EmbeddingCache(tmp_path, model="m", dim=4), norms=True)
    assert third.seen == 0
    np.testing.assert_array_equal(again.norms, last.norms)
    np.testing.assert_array_equal(again.view_norms, last.view_norms)
    np.testing.assert_allclose(first.vectors, last.vectors, atol=1e-6)
    expected = np.linalg.norm(Brightness().measure(np.stack(list(images.values())))[0], axis=1)
    np.testing.assert_allclose(last.norms, expected, rtol=1e-6)


def test_videos_weighted_by_norm_are_sums_of_raw_features():
    images, _ = contrast_world()
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


class Broken:
    """Gives NaN for the second picture."""

    dim = 2

    def embed(self, crops):
        rows = np.tile(np.float32([1.0, 0.0]), (len(crops), 1))
        rows[crops[:, 0, 0, 0] == 1] = np.nan
        return rows


def test_no_figure_is_made_of_embeddings_that_are_not_finite():
    images = {f"p{i}": np.full((4, 4, 3), i, np.uint8) for i in range(3)}
    with pytest.raises(ProtocolError, match=r"not finite \(NaN or infinity\) for 1 of 3 pictures, the first 'p1'"):
        embed_images(Broken(), list(images), images)
