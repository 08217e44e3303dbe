"""Template pooling and comparison against the formula written with loops."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.metrics import fusion as templates
from visavis.metrics.fusion import Pooling, compare_templates, pool_templates


def random_set(seed, images=200, count=25, dim=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(images, dim)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rows = 260
    template = np.concatenate([np.arange(count), rng.integers(0, count, rows - count)])
    return x, Pooling(rng.integers(0, images, rows), template, rng.integers(0, 40, rows)), rng.random(images)


def plain_pool(x, pooling, weights):
    result = []
    for t in range(pooling.template.max() + 1):
        media = {}
        for i, tt, m in zip(pooling.image, pooling.template, pooling.media, strict=True):
            if tt == t and np.isfinite(x[i, 0]):
                media.setdefault(m, []).append(x[i].astype(float) * weights[i])
        total = sum((np.mean(rows, axis=0) for rows in media.values()), np.zeros(x.shape[1]))
        norm = np.linalg.norm(total)
        result.append(total / norm if norm else np.full(x.shape[1], np.nan))
    return np.array(result)


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_pooling_is_mean_within_media_and_sum_over_them(weighted, in_order):
    x, pooling, weights = random_set(0)
    if in_order:
        count = np.arange(len(x))
        pooling = Pooling(count, count // 8, count // 3)
    else:
        x[7] = np.nan
    w = weights if weighted else np.ones(len(x))
    found = pool_templates(x, pooling, weights=weights if weighted else None)
    np.testing.assert_allclose(found, plain_pool(x, pooling, w), atol=2e-6)


def test_a_template_without_an_acquired_picture_is_nan():
    x = np.array([[1, 0], [np.nan, np.nan]], np.float32)
    found = pool_templates(x, Pooling(np.array([0, 1]), np.array([0, 1]), np.array([0, 0])), templates=3)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize(("count", "cells"), [(400, 50), (400, 4_000_000), (20, 4_000_000), (5, 10)])
def test_comparisons_equal_dot_products(monkeypatch, count, cells):
    monkeypatch.setattr(templates, "_CELLS", cells)
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(70, 16)).astype(np.float32)
    vectors[3] = np.nan
    reference, probe = rng.integers(0, 30, count), rng.integers(20, 70, count)
    found = compare_templates(vectors, reference.astype(np.int32), probe.astype(np.int32))
    expected = np.array([np.dot(vectors[a].astype(float), vectors[b]) for a, b in zip(reference, probe, strict=True)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(compare_templates(vectors, reference[:0], probe[:0])) == 0


def test_pooling_of_unequal_vectors_is_refused():
    with pytest.raises(ProtocolError, match="one length"):
        Pooling(np.arange(3), np.arange(2), np.arange(3))
