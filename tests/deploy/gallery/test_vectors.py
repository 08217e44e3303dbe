"""Exact and approximate search over rows in memory, against plain products."""

import numpy as np
import pytest

from visavis.deploy.gallery.approximate import GraphVectors, InvertedVectors
from visavis.deploy.gallery.vectors import Vectors


def units(seed, n, dim=32):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("float16", 2e-3), ("int8", 2e-2)])
@pytest.mark.parametrize("kind", [Vectors, InvertedVectors, GraphVectors])
def test_rows_come_and_go_and_the_answers_follow(kind, precision, error):
    """A long random sequence of changes; the rows kept by hand tell what must be found."""
    options = {"large": 200} if kind is not Vectors else {}
    store, kept = kind(32, precision=precision, **options), []
    rng = np.random.default_rng(3)
    for step in range(60):
        fresh = units(1000 + step, int(rng.integers(1, 30)))
        store.append(fresh)
        kept.extend(fresh)
        for _ in range(int(rng.integers(0, 9))):
            row = int(rng.integers(len(kept)))
            if rng.random() < 0.5:
                store.remove(row)
                kept[row] = kept[-1]
                kept.pop()
            else:
                vector = units(int(rng.integers(1 << 30)), 1)[0]
                store.replace(row, vector)
                kept[row] = vector
        if step % 6 == 5:
            everyone = np.stack(kept)
            assert len(store) == len(kept)
            np.testing.assert_allclose(store.rows(0, len(kept)), everyone, atol=error)
            for probes in (everyone[:1], everyone[-12:]):
                similarity, row = store.search(probes, 1)
                np.testing.assert_allclose(similarity[:, 0], 1, atol=2 * error)
                np.testing.assert_allclose((everyone[row[:, 0]] * probes).sum(1), 1, atol=2 * error)


def test_removed_rows_leave_zeros_behind():
    store = Vectors(8)
    store.append(units(0, 5, 8))
    last = store.rows(4, 5).copy()
    store.remove(1)
    np.testing.assert_array_equal(store.rows(1, 2), last)
    assert not store._data[4].any()
