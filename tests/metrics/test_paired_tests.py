"""Paired tests against enumeration."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from visavis.errors import ProtocolError
from visavis.metrics.paired_tests import (
    PairedDecisions,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    seed_effect,
)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 9), (10, 10), (40, 12)])
def test_mcnemar_equals_the_binomial_sum(only_first, only_second):
    first = np.array([True] * only_first + [False] * only_second + [True] * 7 + [False] * 3)
    second = np.array([False] * only_first + [True] * only_second + [True] * 7 + [False] * 3)
    found = mcnemar(first, second)
    n, k = only_first + only_second, min(only_first, only_second)
    expected = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    assert found.p_value == pytest.approx(expected, abs=1e-12)


def test_minimum_detectable_difference_solves_its_equation_and_shrinks_with_size():
    psi, n = 0.03, 6000
    delta = minimum_detectable_difference(psi, n)
    needed = (1.959963984540054 * psi**0.5 + 0.8416212335729143 * (psi - delta**2) ** 0.5) ** 2 / delta**2
    assert needed == pytest.approx(n, rel=1e-9)
    assert minimum_detectable_difference(psi, 4 * n) < delta
    assert minimum_detectable_difference(0.0, n) == 0.0


def test_seed_effect_equals_the_count_of_splits():
    found = seed_effect([0.90, 0.91, 0.92], [0.93, 0.94, 0.95])
    assert found.p_value == pytest.approx(2 / 20)
    assert found.difference == pytest.approx(0.03)
    assert seed_effect([0.9, 0.9], [0.9, 0.9]).p_value == 1.0
    with pytest.raises(ProtocolError, match="1 to 20 runs"):
        seed_effect([], [1.0])


def small_world(seed=0, n=240, subjects=12):
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, subjects, n)
    genuine = rng.random(n) < 0.5
    probe = np.where(genuine, reference, (reference + rng.integers(1, subjects, n)) % subjects)
    scores = rng.normal(size=n) * 0.3 + genuine * 0.6
    return scores, genuine, reference, probe


def test_paired_bootstrap_of_a_model_with_itself_is_no_difference_and_of_a_worse_one_is():
    scores, genuine, reference, probe = small_world(1, n=800, subjects=40)
    right = (scores > 0.3) == genuine
    model = PairedDecisions(scores, right)
    same = paired_bootstrap((model, model), genuine, (reference, probe), fmrs=(0.1,), replicates=200)
    assert same["accuracy"].value == 0.0
    assert same["accuracy"].interval == (0.0, 0.0)
    assert same["accuracy"].p_value == 1.0
    noisy = scores + np.random.default_rng(2).normal(size=len(scores)) * 0.6
    worse = PairedDecisions(noisy, (noisy > 0.3) == genuine)
    found = paired_bootstrap((model, worse), genuine, (reference, probe), fmrs=(0.1,), replicates=400)
    assert found["accuracy"].value < 0
    assert found["accuracy"].interval[1] < 0
    assert found["1e-1"].p_value < 0.05


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06], abs=1e-12)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (3, 9), (40, 41), (120, 60)])
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    expected = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    first, second = np.arange(gained + lost) >= gained, np.arange(gained + lost) < gained
    assert mcnemar(first, second).p_value == pytest.approx(expected)
