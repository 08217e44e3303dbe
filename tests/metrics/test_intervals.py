"""Intervals against plain definitions."""

from itertools import product

import numpy as np
import pytest

from visavis.metrics.intervals import bootstrap_subjects, subject_difference, subject_interval, wilson


def test_intervals_over_subjects_equal_repeating_their_searches():
    rng = np.random.default_rng(7)
    subject = np.repeat(np.arange(30), rng.integers(1, 6, 30)) * 3
    hits = rng.random(len(subject)) < 0.3 + 0.6 * (subject % 2)
    low, high = subject_interval(hits, subject, replicates=300, seed=5)
    drawn = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=300)
    shares = []
    for times in drawn:
        repeated = [h for s, n in enumerate(times) for _ in range(n) for h in hits[subject == 3 * s]]
        shares.append(np.mean(repeated))
    assert (low, high) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])), abs=1e-12)
    assert subject_interval(hits, np.where(subject == 0, -1, subject), replicates=300) is None
    assert subject_interval(hits, subject, replicates=0) is None


def small_world(seed=0, n=240, subjects=12):
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, subjects, n)
    genuine = rng.random(n) < 0.5
    probe = np.where(genuine, reference, (reference + rng.integers(1, subjects, n)) % subjects)
    scores = rng.normal(size=n) * 0.3 + genuine * 0.6
    return scores, genuine, reference, probe


def test_wilson_solves_its_quadratic():
    for k, n in product((0, 3, 17, 20), (20, 400)):
        low, high = wilson(k, n)
        for bound in (low, high):
            if 0 < bound < 1:
                assert abs(k / n - bound) == pytest.approx(
                    1.959963984540054 * (bound * (1 - bound) / n) ** 0.5, abs=1e-12
                )


def test_bootstrap_of_subjects_equals_repeating_comparisons():
    """A weight of k is the same as k copies of the comparison."""
    scores, genuine, reference, probe = small_world()
    correct = (scores > 0.3) == genuine
    found = bootstrap_subjects(scores, genuine, correct, (reference, probe), fmrs=(0.1,), replicates=5, seed=3)
    drawn = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=5)
    for row, times in enumerate(drawn):
        copies = [times[a] if a == b else times[a] * times[b] for a, b in zip(reference, probe, strict=True)]
        s, g, c = (np.repeat(v, copies) for v in (scores, genuine, correct))
        assert found.accuracy[row] == pytest.approx(c.mean(), abs=1e-12)
        best = max((np.mean(s[g] >= t) for t in s if np.mean(s[~g] >= t) <= 0.1), default=0.0)
        assert found.tmr["1e-1"][row] == pytest.approx(best, abs=1e-12)


def test_a_difference_over_subjects_equals_repeating_them():
    rng = np.random.default_rng(0)
    subject = np.repeat(np.arange(12), rng.integers(1, 5, 12)) * 2
    first, second = rng.random((2, len(subject))) < 0.6
    (low, high), p = subject_difference(first, second, subject, replicates=200, seed=3)
    drawn = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=200)
    plain = []
    for times in drawn:
        rows = np.concatenate([np.repeat(np.flatnonzero(subject == 2 * s), n) for s, n in enumerate(times)])
        plain.append(second[rows].mean() - first[rows].mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=1e-12)
    tail = min(np.sum(np.array(plain) <= 1e-15), np.sum(np.array(plain) >= -1e-15))
    assert p == pytest.approx(min(1, 2 * (tail + 1) / 201), abs=0.02)
    same = subject_difference(first, first, subject, replicates=50)
    assert same == ((0.0, 0.0), 1.0)
