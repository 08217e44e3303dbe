"""Every miner against loops written from its definition, on unequal classes, unsorted labels and strangers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.losses.triplets import MINERS
from visavis.losses.triplets.distances import squared_l2, unit_rows
from visavis.types import Triplets

MARGIN = 0.25


def scene(sizes: list[int], *, seed: int, dim: int = 6, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (N, N) and shuffled labels of identities with these many pictures."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) * 7 - 3
    labels = labels[torch.randperm(len(labels), generator=rng)]
    centers = torch.randn(len(sizes), dim, generator=rng)
    x = centers[(labels + 3) // 7] + spread * torch.randn(len(labels), dim, generator=rng)
    return squared_l2(unit_rows(x), unit_rows(x)), labels


def pairs(labels: Any, *, later: bool = False) -> list[tuple[int, int]]:
    n = range(len(labels))
    return [(a, p) for a in n for p in n if labels[a] == labels[p] and (a < p if later else a != p)]


def violating(d: Any, labels: Any, a: int, p: int) -> list[int]:
    limit = d[a, p] + np.float32(MARGIN)
    return [n for n in range(len(labels)) if labels[n] != labels[a] and d[a, n] < limit]


def every(d: Any, labels: Any, *, later: bool = False) -> set[tuple[int, int, int]]:
    return {(a, p, n) for a, p in pairs(labels, later=later) for n in violating(d, labels, a, p)}


def as_set(t: Triplets) -> set[tuple[int, int, int]]:
    found = list(zip(t.anchor.tolist(), t.positive.tolist(), t.negative.tolist(), strict=True))
    assert len(set(found)) == len(found), "a triplet came twice"
    return set(found)


def by_gap(d: Any, labels: Any, *, mildest: bool) -> set[tuple[int, int, int]]:
    """min-min: the anchor's smallest gap; min-max: the largest of its pairs' smallest gaps."""
    out = set()
    for a in range(len(labels)):
        worst = []
        for p in (p for anchor, p in pairs(labels) if anchor == a):
            gaps = [(float(d[a, n]) - float(d[a, p]), p, n) for n in violating(d, labels, a, p)]
            worst += [min(gaps)] if gaps else []
        if worst:
            out.add((a, *(max(worst) if mildest else min(worst))[1:]))
    return out


def hardest(d: Any, labels: Any, *, later: bool = False) -> set[tuple[int, int, int]]:
    out = set()
    for a in range(len(labels)):
        ps = [p for anchor, p in pairs(labels, later=later) if anchor == a]
        ns = [n for n in range(len(labels)) if labels[n] != labels[a]]
        if ps and ns:
            out.add((a, max(ps, key=lambda p: d[a, p]), min(ns, key=lambda n: d[a, n])))
    return out


def semi_hard(d: Any, labels: Any) -> set[tuple[int, int, int]]:
    out = set()
    for a, p in pairs(labels):
        ns = [n for n in violating(d, labels, a, p) if d[a, n] > d[a, p]]
        if ns:
            out.add((a, p, min(ns, key=lambda n: d[a, n])))
    return out


GOLDEN = {
    "batch_all": every,
    "batch_min_min": lambda d, y: by_gap(d, y, mildest=False),
    "batch_min_max": lambda d, y: by_gap(d, y, mildest=True),
    "batch_hardest": hardest,
    "semi_hard": semi_hard,
}
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=6)


@pytest.mark.parametrize("name", GOLDEN)
@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 10_000), spread=st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_the_miner_finds_what_its_definition_says(name: str, sizes: list[int], seed: int, spread: float) -> None:
    """Unequal class sizes in any order (row M18)."""
    d, labels = scene(sizes, seed=seed, spread=spread)
    assert as_set(MINERS[name](d, labels, margin=MARGIN)) == GOLDEN[name](d.numpy(), labels.tolist())


@pytest.mark.parametrize("name", MINERS)
@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 10_000), margin=st.floats(0.01, 2.0))
def test_triplets_are_two_of_one_and_one_of_another(name: str, sizes: list[int], seed: int, margin: float) -> None:
    d, labels = scene(sizes, seed=seed)
    t = MINERS[name](d, labels, margin=margin, generator=torch.Generator().manual_seed(seed))
    y = labels.numpy()
    assert t.anchor.dtype == t.positive.dtype == t.negative.dtype == np.int64
    assert (y[t.anchor] == y[t.positive]).all()
    assert (y[t.anchor] != y[t.negative]).all()
    assert (t.anchor != t.positive).all()
    if name not in ("batch_hardest", "distance_weighted"):
        dist = d.numpy()
        assert (dist[t.anchor, t.negative] < dist[t.anchor, t.positive] + np.float32(margin)).all()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("spread", [0.6, 3.0])
def test_batch_random_takes_one_violating_negative_per_pair_uniformly(legacy: bool, spread: float) -> None:
    d, labels = scene([2, 3, 25, 5, 1, 20], seed=3, spread=spread)
    wanted = every(d.numpy(), labels.tolist(), later=legacy)
    drawn: Counter[tuple[int, int, int]] = Counter()
    rng, rounds = torch.Generator().manual_seed(0), 60
    for _ in range(rounds):
        found = as_set(MINERS["batch_random"](d, labels, margin=MARGIN, generator=rng, legacy=legacy))
        assert {t[:2] for t in found} == {t[:2] for t in wanted}
        assert found <= wanted
        drawn.update(found)
    per_pair = Counter(t[:2] for t in wanted)
    # Pearson's statistic over all cells of all pairs: mean = degrees of freedom f, deviation = sqrt(2 f).
    statistic = sum((drawn[t] - rounds / per_pair[t[:2]]) ** 2 / (rounds / per_pair[t[:2]]) for t in wanted)
    freedom = len(wanted) - len(per_pair)
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_batch_random_repeats_with_its_generator() -> None:
    d, labels = scene([4, 5, 6, 3], seed=0)
    one, two, other = (
        as_set(MINERS["batch_random"](d, labels, margin=1.0, generator=torch.Generator().manual_seed(s)))
        for s in (1, 1, 2)
    )
    assert one == two != other


def test_min_min_and_min_max_differ_as_they_were_meant_to() -> None:
    """Row M6: the gap decides, not the negative alone."""
    # Anchor 0: positives at 0.3 and 0.5, closest negative at 0.4; both pairs violate a margin of 0.25.
    d = torch.tensor(
        [[0.0, 0.3, 0.5, 0.4, 0.9], [0.3, 0, 3, 3, 3], [0.5, 3, 0, 4, 4], [0.4, 3, 4, 0, 0], [0.9, 3, 4, 0, 0]]
    )
    labels = torch.tensor([5, 5, 5, 8, 8])
    first = {name: min(as_set(MINERS[name](d, labels, margin=0.25))) for name in ("batch_min_min", "batch_min_max")}
    assert first == {"batch_min_min": (0, 2, 3), "batch_min_max": (0, 1, 3)}


@settings(max_examples=25, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 10_000))
def test_legacy_uses_later_positives_and_cannot_tell_min_min_from_min_max(sizes: list[int], seed: int) -> None:
    """Row M6 as the original is written."""
    d, labels = scene(sizes, seed=seed)
    legacy = {n: as_set(MINERS[n](d, labels, margin=MARGIN, legacy=True)) for n in ("batch_min_min", "batch_min_max")}
    first = {}
    for a, p in pairs(labels.tolist(), later=True):
        for n in sorted(violating(d.numpy(), labels.tolist(), a, p), key=lambda n: d[a, n]):
            first.setdefault(a, (a, p, n))
            break
    assert legacy["batch_min_min"] == legacy["batch_min_max"] == set(first.values())
    hard = as_set(MINERS["batch_hardest"](d, labels, margin=MARGIN, legacy=True))
    assert hard == hardest(d.numpy(), labels.tolist(), later=True)


def test_legacy_batch_all_is_clipped_as_the_reference_clips_it() -> None:
    """Row M17."""
    d, labels = scene([5] * 8, seed=1, spread=3.0)
    found = every(d.numpy(), labels.tolist(), later=True)
    assert len(found) > 10 * len(labels)
    kept = as_set(MINERS["batch_all"](d, labels, margin=MARGIN, legacy=True))
    assert kept <= found
    assert len(kept) == 10 * len(labels) // 3
    few, few_labels = scene([3] * 3, seed=1, spread=1.5)
    few_found = every(few.numpy(), few_labels.tolist(), later=True)
    assert 3 <= len(few_found) < 90
    assert len(MINERS["batch_all"](few, few_labels, margin=MARGIN, legacy=True)) == len(few_found) // 3


def test_batch_all_can_be_capped_at_random() -> None:
    d, labels = scene([5] * 8, seed=1, spread=3.0)
    a, b = (
        as_set(
            MINERS["batch_all"](d, labels, margin=MARGIN, max_triplets=50, generator=torch.Generator().manual_seed(s))
        )
        for s in (1, 2)
    )
    assert len(a) == len(b) == 50
    assert a != b
    assert a | b <= every(d.numpy(), labels.tolist())


def test_distance_weighted_draws_by_its_formula() -> None:
    dim, cutoff, far, rounds = 5, 0.5, 1.4, 4000
    d, labels = scene([2, 3, 4, 3], seed=5, dim=dim)
    d = d.double()
    rng = torch.Generator().manual_seed(0)
    drawn: Counter[int] = Counter()
    for _ in range(rounds):
        t = MINERS["distance_weighted"](d, labels, margin=MARGIN, generator=rng, dim=dim, cutoff=cutoff, far=far)
        drawn.update(t.negative[t.anchor == 0].tolist())
    others = [n for n in range(len(labels)) if labels[n] != labels[0] and d[0, n] ** 0.5 < far]
    root = {n: max(float(d[0, n]) ** 0.5, cutoff) for n in others}
    weight = {n: root[n] ** (2 - dim) * (1 - root[n] ** 2 / 4) ** (-(dim - 3) / 2) for n in others}
    total, share = sum(drawn.values()), sum(weight.values())
    assert set(drawn) <= set(others)
    for n in others:
        p = weight[n] / share
        assert abs(drawn[n] / total - p) < 5 * (p * (1 - p) / total) ** 0.5 + 1e-9


@pytest.mark.parametrize("name", MINERS)
def test_local_queries_find_what_the_whole_batch_holds(name: str) -> None:
    """Two ranks with unequal parts, mining against everything gathered, together mine like one process."""
    d, labels = scene([4, 1, 6, 3, 5], seed=11, spread=1.5)
    if name in ("batch_random", "distance_weighted"):
        whole = {t[:2] for t in as_set(MINERS[name](d, labels, margin=MARGIN))}
    else:
        whole = as_set(MINERS[name](d, labels, margin=MARGIN))
    parts: set[Any] = set()
    for part in (torch.arange(7), torch.arange(7, len(labels))):
        t = MINERS[name](d[part], labels[part], margin=MARGIN, reference_labels=labels, own=part)
        found = as_set(Triplets(part.numpy()[t.anchor], t.positive, t.negative))
        parts |= {f[: len(next(iter(whole)))] for f in found}
    assert parts == whole


@pytest.mark.parametrize("name", MINERS)
def test_queries_may_be_strangers_to_the_references(name: str) -> None:
    d = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]])
    t = MINERS[name](d, torch.tensor([1, 9]), margin=1.0, reference_labels=torch.tensor([1, 2, 2]))
    assert set(t.anchor.tolist()) <= {0}
    assert set(t.positive.tolist()) <= {0}
    assert set(t.negative.tolist()) <= {1, 2}
    assert len(t) >= 1


@pytest.mark.parametrize("name", MINERS)
@pytest.mark.parametrize("labels", [[], [1], [1, 1, 1], [1, 2, 3]])
def test_nothing_to_mine_is_an_empty_answer(name: str, labels: list[int]) -> None:
    """Row M16: no valid triplet is no error."""
    y = torch.tensor(labels, dtype=torch.long)
    options: list[dict[str, Any]] = [{}]
    if name.startswith("batch"):
        options.append({"legacy": True})
    for option in options:
        t = MINERS[name](torch.ones(len(y), len(y)), y, margin=0.25, **option)
        assert len(t) == len(t.anchor) == len(t.positive) == len(t.negative) == 0


@pytest.mark.parametrize("name", ["batch_all", "batch_random", "batch_min_min", "batch_min_max", "semi_hard"])
def test_well_separated_identities_leave_nothing(name: str) -> None:
    d, labels = scene([3, 4, 2], seed=0, dim=64, spread=1e-3)
    assert len(MINERS[name](d, labels, margin=0.2)) == 0
