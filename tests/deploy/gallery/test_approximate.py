"""Approximate search: the recall it states, and nobody erased comes back."""

import numpy as np
import pytest

from visavis.deploy.gallery.approximate import TARGET, GraphVectors, InvertedVectors


def units(seed, n, dim=32):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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
