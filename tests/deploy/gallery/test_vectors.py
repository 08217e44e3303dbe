"""Exact and approximate search over rows in memory, against plain products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.deploy.gallery.approximate import TARGET, GraphVectors, InvertedVectors
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


@pytest.mark.parametrize("kind", [InvertedVectors, GraphVectors])
def test_approximation_reaches_the_recall_it_states_and_never_misstates_a_similarity(kind):
    people = units(0, 6000, 64)
    store = kind(64, large=1000)
    store.append(people)
    noise = np.random.default_rng(5).standard_normal((300, 64)).astype(np.float32)
    probes = people[:300] + noise * np.float32(4 / 3 / 8)
    probes /= np.linalg.norm(probes, axis=1, keepdims=True)
    similarity, row = store.search(probes, 5)
    truth = (probes @ people.T).argmax(1)
    assert store.recall >= TARGET
    assert (row[:, 0] == truth).mean() > 0.95
    np.testing.assert_allclose(similarity, np.einsum("pkd,pd->pk", people[row], probes), atol=1e-5)
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_what_is_erased_from_a_graph_is_gone_and_a_worn_graph_is_made_anew():
    people = units(0, 2000, 64)
    store = GraphVectors(64, large=1000)
    store.append(people)
    assert store.search(people[7:8], 1)[1][0, 0] == 7
    first = store._made
    for row in range(300):
        store.remove(row)  # the last takes its place
    codes = np.concatenate([np.frombuffer(store._faiss.vector_to_array(store._storage_codes()), np.float16)])
    assert (np.abs(codes.reshape(-1, 64).astype(np.float32) @ people[7]) > 0.99).sum() == 0
    similarity, row = store.search(people[7:8], 3)
    assert similarity.max() < 0.99
    for probe in (people[1500], people[1999]):
        similarity, row = store.search(probe[None], 1)
        assert similarity[0, 0] == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(store.rows(row[0, 0], row[0, 0] + 1)[0], probe, atol=1e-6)
    assert store._made is first
    for _ in range(200):
        store.remove(0)
    assert store.search(people[1500:1501], 1)[0][0, 0] == pytest.approx(1, abs=1e-5)
    assert store._made is not first
