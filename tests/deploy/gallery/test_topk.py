"""The k largest, against sorting everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.deploy.gallery.topk import top_k
from visavis.deploy.gallery.vectors import Vectors
from visavis.errors import DataError


def units(seed, n, dim=32):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 9), st.integers(1, 40), st.sampled_from([7, 64, 1000]), st.booleans())
def test_top_k_is_that_of_sorting_everything(n, probes, k, chunk, ties):
    rows, asked = units(n, n, 8), units(1, probes, 8)
    if ties:
        rows = np.sign(rows).astype(np.float32)
        asked = np.sign(asked).astype(np.float32)
    similarity, row = top_k(asked, lambda a, b: rows[a:b], n, k, chunk=chunk)
    scores = asked @ rows.T
    order = np.lexsort((np.broadcast_to(np.arange(n), scores.shape), -scores), axis=1)[:, :k]
    assert similarity.shape == row.shape == (probes, min(k, n))
    np.testing.assert_allclose(similarity, np.take_along_axis(scores, order, 1), atol=1e-6)
    if ties:
        np.testing.assert_array_equal(row, order)


def test_top_k_refuses_what_makes_no_sense():
    with pytest.raises(DataError, match="k of at least 1"):
        top_k(units(0, 1), lambda a, b: units(0, b - a), 5, 0)
    with pytest.raises(DataError, match="probes"):
        top_k(units(0, 1)[0], lambda a, b: units(0, b - a), 5, 1)
    with pytest.raises(DataError, match="did you mean 'float32'"):
        Vectors(8, precision="float23")


@pytest.mark.parametrize(("first", "k"), [(0, 30), (5, 3), (17, 10), (19, 1), (20, 4)])
@pytest.mark.parametrize("probes", [1, 3, 40])
def test_the_search_may_begin_at_a_later_row_and_returns_no_more_than_the_rest(first, k, probes):
    rows, asked = units(0, 20, 8), units(1, probes, 8)
    similarity, row = top_k(asked, lambda a, b: rows[a:b], 20, k, first=first, chunk=6)
    scores = asked @ rows[first:].T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert row.shape == (probes, min(k, 20 - first))
    np.testing.assert_array_equal(row, first + order)
    np.testing.assert_allclose(similarity, np.take_along_axis(scores, order, 1), atol=1e-6)
