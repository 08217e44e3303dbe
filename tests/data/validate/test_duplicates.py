"""Perceptual hashes and the search for close ones."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.data.validate.duplicates import HashReference, bucket_search, choices_of, close_hashes, equal_bytes


def planted(count: int, distances: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random hashes of which the last len(distances) are others of them with so many bits turned; and of which."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (count, 2), dtype=np.uint64)
    twins = rng.permutation(count - len(distances))[: len(distances)]
    for k, (twin, distance) in enumerate(zip(twins, distances, strict=True)):
        bits = np.unpackbits(hashes[twin].view(np.uint8))
        bits[rng.choice(128, distance, replace=False)] ^= 1
        hashes[count - len(distances) + k] = np.packbits(bits).view(np.uint64)
    return hashes, twins


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([8, 11, 16]))
def test_buckets_find_close_pairs_and_only_true_ones(seed, width):
    hashes, _ = planted(60, np.random.default_rng(seed).integers(0, 13, 20), seed)
    exact = {tuple(row) for row in close_hashes(hashes, np.ones(60, bool), radius=30).tolist()}
    found = {tuple(row) for row in bucket_search(hashes, np.arange(60), radius=30, width=width).tolist()}
    assert found <= exact
    assert {row for row in exact if row[2] <= 8} <= found


def test_the_share_found_is_as_promised():
    """In 60,000 hashes: all that differ in up to 8 bits, and 95 % of those that differ in 22."""
    distances = np.repeat([2, 8, 22], 400)
    hashes, twins = planted(60_000, distances)
    steps = []
    rows = close_hashes(hashes, np.ones(60_000, bool), progress=lambda done, total: steps.append((done, total)))
    found = {(i, j) for i, j, _ in rows.tolist()}
    hit = np.array([(int(twin), 60_000 - 1200 + k) in found for k, twin in enumerate(twins)])
    assert hit[:800].all()
    assert hit[800:].mean() > 0.92
    assert len(found) == hit.sum()
    assert steps[-1] == (choices_of(16), choices_of(16))


def test_a_crowd_of_equal_hashes_does_not_cost_its_square():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (30_000, 2), dtype=np.uint64)
    hashes[:10_000] = hashes[0]
    rows = close_hashes(hashes, np.ones(30_000, bool))
    assert len(rows) <= 130 * 10_000
    assert set(rows[:, :2].ravel().tolist()) == set(range(10_000))  # each hangs on another


def test_equal_bytes_groups():
    digests = np.array([[1], [2], [1], [3], [2], [1], [9], [9]], np.uint8)
    valid = np.array([True] * 6 + [True, False])
    assert [group.tolist() for group in equal_bytes(digests, valid)] == [[0, 2, 5], [1, 4]]


def test_a_hash_is_of_the_direction_from_the_mean_and_not_of_the_distance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 128)) * np.geomspace(0.1, 10, 500)[:, None]
    reference = HashReference.of(features)
    nearer = reference.mean + 0.3 * (features - reference.mean)
    differing = np.unpackbits((reference.hashes(features) ^ reference.hashes(nearer)).view(np.uint8), axis=1).sum(1)
    assert differing.max() <= 1  # the last bit of a rounding
