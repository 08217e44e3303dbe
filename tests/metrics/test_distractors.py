"""The best of growing sets of distractors, against sorting all of them."""

import numpy as np
import pytest

from visavis.metrics import distractors
from visavis.metrics.distractors import growing_distractors


def units(seed, n, dim=8):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 7, 8192])
@pytest.mark.parametrize("keep", [1, 3])
def test_the_highest_of_each_size_are_those_of_sorting(monkeypatch, block, keep):
    monkeypatch.setattr(distractors, "_BLOCK", block)
    probes, vectors = units(0, 5), units(1, 40)
    vectors[11] = np.nan  # no distractor
    probes[3] = np.nan  # not acquired: it must find nobody
    order = np.random.default_rng(2).permutation(40)[:30]
    sizes = (1, 2, 10, 30)
    found = growing_distractors(probes, vectors, order, sizes, keep=keep)
    assert found.shape == (4, 5, keep)
    for k, size in enumerate(sizes):
        scores = np.nan_to_num(probes @ vectors[order[:size]].T, nan=-np.inf)
        scores = np.concatenate([scores, np.full((5, keep), -np.inf)], axis=1)
        expected = -np.sort(-scores, axis=1)[:, :keep]
        expected[3] = np.inf
        np.testing.assert_allclose(found[k], expected, rtol=1e-5)
