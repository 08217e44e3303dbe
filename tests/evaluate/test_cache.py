"""Embeddings kept by content."""

import pytest
from fake_embedders import FakeEmbedder, world

from visavis.evaluate import evaluate
from visavis.evaluate.cache import EmbeddingCache


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
