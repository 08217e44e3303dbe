"""Grouping faces: average linkage exactly, along a neighbor graph, in memory that does not grow with the pairs."""

import tracemalloc

import numpy as np
import pytest

from visavis.deploy.gallery.clustering import average_linkage, cluster, lowest_similarity, neighbor_graph
from visavis.errors import DataError


def people(seed, counts, noise, dim=64):
    """Unit rows, `counts[i]` of person i, and whose they are; rows are shuffled."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centers = rng.standard_normal((len(counts), dim)) / np.sqrt(dim)
    rows = centers[labels] + noise * rng.standard_normal((len(labels), dim)) / np.sqrt(dim)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def same(labels):
    return labels[:, None] == labels[None, :]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.15, 0.3, 0.45])
def test_it_is_average_linkage_to_the_last_pair(seed, threshold):
    """scipy's UPGMA over all pairs, cut at the threshold, groups the same rows; people overlap here."""
    from scipy.cluster.hierarchy import fcluster, linkage

    rows, _ = people(seed, [1, 1, 2, 3, 5, 8, 13, 21], 1.3, dim=16)
    tree = linkage(np.clip(1 - (rows.astype(float) @ rows.T)[np.triu_indices(len(rows), 1)], 0, None), "average")
    expected = fcluster(tree, 1 - threshold, "distance")
    labels = average_linkage(rows, neighbor_graph(rows, threshold), threshold)
    np.testing.assert_array_equal(same(labels), same(expected))
    assert len(np.unique(labels)) < len(rows)


def test_groups_come_largest_first_with_the_lowest_similarity_of_their_pairs():
    rows, person = people(1, [4, 1, 7, 2], 0.4)
    groups = cluster(rows, 0.4)
    assert [len(g.members) for g in groups] == [7, 4, 2]
    for group in groups:
        members = list(group.members)
        assert len(set(person[members])) == 1
        assert group.lowest == pytest.approx(float((rows[members] @ rows[members].T).min()), abs=1e-6)
        assert members == sorted(members)
    assert [len(g.members) for g in cluster(rows, 0.4, min_size=3)] == [7, 4]


def test_a_chain_is_no_group():
    """Neighbors reach the threshold one after the other, the ends are strangers: single linkage would join all."""
    angles = np.arange(12) * 0.5
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    groups = cluster(rows, 0.8)
    assert max(len(g.members) for g in groups) < 5
    assert len(neighbor_graph(rows, 0.8).first) == 11


def test_the_threshold_itself_joins():
    rows = np.array([[1, 0], [0.6, 0.8], [-1, 0]], np.float32)
    assert [g.members for g in cluster(rows, 0.6)] == [(0, 1)]
    assert cluster(rows, 0.601) == []
    assert [g.members for g in cluster(rows.astype(float)[::-1][::-1], 0.6)] == [(0, 1)]  # whatever the type


def test_more_faces_of_one_person_than_neighbors_are_one_group():
    rows, person = people(2, [300, 200, 5], 0.8)
    groups = cluster(rows, 0.3, neighbors=16)
    assert [len(g.members) for g in groups] == [300, 200, 5]
    assert all(len(set(person[list(g.members)])) == 1 for g in groups)


def test_the_same_rows_in_another_order_make_the_same_groups():
    rows, _ = people(3, [6] * 20, 1.0)
    order = np.random.default_rng(0).permutation(len(rows))
    first = {frozenset(g.members) for g in cluster(rows, 0.3)}
    assert {frozenset(order[list(g.members)].tolist()) for g in cluster(rows[order], 0.3)} == first


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_and_nobody_else(n):
    assert cluster(np.ones((n, 4), np.float32) / 2, 0.3) == []


def test_twins_in_one_place():
    rows = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    assert [len(g.members) for g in cluster(rows, 0.5, neighbors=8)] == [40, 40, 40]
    assert lowest_similarity(rows[:1]) == 1.0


@pytest.mark.parametrize(
    "arguments", [{"min_size": 1}, {"threshold": 1.0}, {"threshold": float("nan")}, {"neighbors": 0}]
)
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(DataError):
        cluster(np.eye(3, dtype=np.float32), **({"threshold": 0.5} | arguments))


def test_memory_does_not_grow_with_the_pairs():
    """9,000 faces have 81 million ordered pairs, 324 MB as float32; the grouping takes a sixth."""
    rows, _ = people(4, [3] * 3000, 0.4, dim=16)
    tracemalloc.start()
    groups = cluster(rows, 0.85, neighbors=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(groups) > 1000
    assert peak < 54e6


def test_rows_of_a_known_person_are_together_and_two_known_people_apart():
    """Whatever their similarity says; and what is not known joins the one it is like."""
    rows, person = people(4, [12, 12, 12], 0.7)
    known = np.full(len(rows), -1)
    first, second, third = (np.flatnonzero(person == p) for p in range(3))
    known[[first[0], second[0], second[1]]] = 7  # one person, says somebody, though two by their faces
    known[third[:4]], known[third[4]] = 3, 4  # and two, though one by theirs
    labels = average_linkage(rows, neighbor_graph(rows, 0.3), 0.3, known=known)
    assert len(set(labels[known == 7])) == 1
    assert len(set(labels[known == 3])) == 1
    assert labels[third[0]] != labels[third[4]]
    assert len(set(labels[third[5:]]) - {labels[third[0]], labels[third[4]]}) == 0
    free = average_linkage(rows, neighbor_graph(rows, 0.3), 0.3)
    nobody = average_linkage(rows, neighbor_graph(rows, 0.3), 0.3, known=np.full(len(rows), -1))
    np.testing.assert_array_equal(free, nobody)


def test_known_groups_equal_what_joining_them_one_by_one_gives():
    """A person known as what the clustering finds by itself changes nothing."""
    rows, _ = people(5, [9, 7, 5, 3, 1], 1.0)
    edges = neighbor_graph(rows, 0.3)
    free = average_linkage(rows, edges, 0.3)
    known = np.where(free == free[0], 5, -1)
    np.testing.assert_array_equal(same(average_linkage(rows, edges, 0.3, known=known)), same(free))
