"""Batches as a pure function of seed, step, rank and world."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis import seeding
from visavis.data.samplers import PxK, Shuffled
from visavis.errors import DataError, RecipeError

UNEQUAL = np.repeat(np.arange(7) * 10, [1, 2, 3, 5, 8, 13, 4])


@given(n=st.integers(1, 90), size=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_an_epoch_holds_every_picture_once(n: int, size: int, seed: int) -> None:
    sampler = Shuffled(np.zeros(n, int), batch_size=size, seed=seed, drop_last=False)
    batches = list(sampler.epoch(2))
    assert len(batches) == len(sampler) == -(-n // size)
    assert sorted(np.concatenate(batches)) == list(range(n))


def test_drop_last_keeps_batches_full_and_drops_other_pictures_each_epoch() -> None:
    sampler = Shuffled(np.zeros(23, int), batch_size=5, seed=1)
    seen = [np.concatenate(list(sampler.epoch(e))) for e in range(4)]
    assert [len(s) for s in seen] == [20] * 4
    assert len({frozenset(range(23)) - frozenset(s) for s in seen}) > 1
    assert not np.array_equal(seen[0], seen[1])


@given(
    n=st.integers(12, 60), size=st.integers(1, 3), world=st.integers(1, 4), drop=st.booleans(), step=st.integers(0, 99)
)
def test_ranks_share_out_the_batch_of_one_process(n: int, size: int, world: int, drop: bool, step: int) -> None:
    labels = np.arange(n) // 3
    alone = Shuffled(labels, batch_size=size * world, seed=5, drop_last=drop)
    parts = [
        Shuffled(labels, batch_size=size, seed=5, drop_last=drop, rank=r, world=world).batch(step) for r in range(world)
    ]
    assert np.array_equal(np.concatenate(parts), alone.batch(step))
    assert max(map(len, parts)) - min(map(len, parts)) <= (0 if drop else 1)


@given(step=st.integers(0, 10_000), world=st.integers(1, 3))
def test_identities_are_shared_out_too(step: int, world: int) -> None:
    alone = PxK(UNEQUAL, classes_per_batch=2 * world, images_per_class=3, seed=5)
    parts = [PxK(UNEQUAL, classes_per_batch=2, images_per_class=3, seed=5, rank=r, world=world) for r in range(world)]
    batches = [p.batch(step) for p in parts]
    assert np.array_equal(np.concatenate(batches), alone.batch(step))
    assert [len(set(UNEQUAL[b])) for b in batches] == [2] * world


def test_any_step_can_be_asked_for_without_those_before() -> None:
    for make in (
        lambda: Shuffled(UNEQUAL, batch_size=4, seed=9),
        lambda: PxK(UNEQUAL, classes_per_batch=3, images_per_class=4, seed=9),
    ):
        through = make()
        run = [through.batch(s) for s in range(40)]
        for step in (39, 0, 17, 16):
            assert np.array_equal(make().batch(step), run[step])
            assert np.array_equal(through.batch(step), run[step])


@given(p=st.integers(1, 7), k=st.integers(1, 9), seed=st.integers(0, 1000), repeat=st.booleans())
def test_p_identities_with_k_pictures_each(p: int, k: int, seed: int, repeat: bool) -> None:
    """Row M2."""
    sampler = PxK(UNEQUAL, classes_per_batch=p, images_per_class=k, seed=seed, repeat=repeat)
    sizes = Counter(UNEQUAL.tolist())
    visited: Counter[int] = Counter()
    for batch in sampler.epoch(0):
        held = Counter(UNEQUAL[batch].tolist())
        assert len(held) == p, "an identity came twice"
        for identity, count in held.items():
            assert count == (k if repeat else min(k, sizes[identity]))
            times = Counter(batch[UNEQUAL[batch] == identity].tolist()).values()
            assert max(times) <= -(-count // sizes[identity])
        visited.update(held.keys())
    assert set(visited) == set(sizes)
    assert sum(visited.values()) == p * -(-7 // p)


def test_pictures_of_an_identity_change_from_pass_to_pass() -> None:
    sampler = PxK(np.repeat([0, 1], 50), classes_per_batch=2, images_per_class=5, seed=0)
    assert len(np.unique(np.concatenate([sampler.batch(s) for s in range(60)]))) > 95


def test_small_identities_can_be_left_out_and_are_counted() -> None:
    sampler = PxK(UNEQUAL, classes_per_batch=2, images_per_class=2, seed=0, min_images=3)
    assert (sampler.num_classes, sampler.left_out) == (5, 2)
    assert set(UNEQUAL[np.concatenate([sampler.batch(s) for s in range(9)])]) == {20, 30, 40, 50, 60}


def test_impossible_sizes_say_what_to_do() -> None:
    with pytest.raises(DataError, match="lower the batch size to 36"):
        Shuffled(UNEQUAL, batch_size=30, seed=0, world=2)
    with pytest.raises(
        DataError, match=r"got 5 \(2 more have fewer than 3 pictures\): lower the batch size to 5 identities"
    ):
        PxK(UNEQUAL, classes_per_batch=6, images_per_class=2, seed=0, min_images=3)
    with pytest.raises(DataError, match="non-empty vector of whole-number labels"):
        Shuffled(np.zeros(0, int), batch_size=1, seed=0)
    with pytest.raises(DataError, match="float64"):
        Shuffled(np.zeros(3), batch_size=1, seed=0)
    with pytest.raises(RecipeError, match=r"rank must lie in \[0, 2\)"):
        Shuffled(UNEQUAL, batch_size=1, seed=0, rank=2, world=2)
    with pytest.raises(RecipeError, match="images_per_class must be at least 1, got 0"):
        PxK(UNEQUAL, classes_per_batch=1, images_per_class=0, seed=0)
    with pytest.raises(RecipeError, match="step must be 0 or more"):
        Shuffled(UNEQUAL, batch_size=1, seed=0).batch(-1)


def test_threads_draw_an_epochs_order_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    generator = seeding.generator

    def counted(seed: int, purpose: str, *counters: int) -> np.random.Generator:
        drawn.append(counters[0])
        time.sleep(0.05)
        return generator(seed, purpose, *counters)

    monkeypatch.setattr(seeding, "generator", counted)
    sampler = Shuffled(np.arange(80), batch_size=10, seed=0)
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(sampler.batch, range(8)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(80))
    assert drawn == [0]
