"""Accuracy over folds against a search over all thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.metrics.error_rates import error_curve
from visavis.metrics.kfold import (
    SortedScores,
    best_threshold,
    contiguous_folds,
    cut_folds,
    falling_order,
    fold_accuracy,
)
from visavis.metrics.verification import verify_scores


def plain_best_threshold(scores, genuine):
    finite = sorted({s for s in scores if s > -np.inf}, reverse=True)
    best, gaps = -1, []
    for accepted in range(len(finite) + 1):
        low = finite[accepted - 1] if accepted else np.inf
        right = sum((s >= low) == g for s, g in zip(scores, genuine, strict=True))
        if right > best:
            best, gaps = right, []
        if right == best:
            gaps.append(accepted)
    k = gaps[(len(gaps) - 1) // 2]
    if k == 0:
        return np.nextafter(finite[0], np.inf)
    return finite[k - 1] if k == len(finite) else (finite[k - 1] + finite[k]) / 2


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 2)), min_size=6, max_size=30))
def test_fold_accuracy_equals_a_search_over_all_thresholds(rows):
    level, genuine, fold = (np.array(column) for column in zip(*rows, strict=True))
    scores = np.where(level == 0, -np.inf, level / 7)  # level 0: failed to acquire
    if len(set(fold)) < 2 or any(not (scores[fold != f] > -np.inf).any() for f in set(fold)):
        return
    found = fold_accuracy(SortedScores.of(scores, genuine), fold)
    for f, accuracy, threshold in zip(sorted(set(fold)), found.accuracy, found.threshold, strict=True):
        expected = plain_best_threshold(scores[fold != f], genuine[fold != f])
        assert threshold == pytest.approx(expected, abs=1e-12)
        here = fold == f
        assert accuracy == pytest.approx(((scores[here] >= expected) == genuine[here]).mean(), abs=1e-12)
        np.testing.assert_array_equal(found.match[here], scores[here] >= expected)


def test_hand_worked_scores():
    #             threshold 0.45 splits all but the impostor at 0.5 and the genuine at 0.4
    scores = np.array([0.9, 0.8, 0.7, 0.4, 0.5, 0.3, 0.2, 0.1])
    genuine = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    curve = error_curve(scores, genuine)
    assert curve.auc == 15 / 16
    assert curve.at_fmr(0.0).tmr == 0.75
    assert curve.at_fmr(0.0).threshold == pytest.approx(0.6)
    assert curve.at_fmr(0.25).tmr == 1.0
    assert curve.at_fmr(0.25).threshold == pytest.approx(0.35)
    assert curve.eer == 0.25
    # accepting 3 or 5 scores is right for 7 of 8; the upper of the two gaps is the middle one
    assert best_threshold(SortedScores.of(scores, genuine)) == pytest.approx(0.6)
    assert curve.d_prime == pytest.approx((0.7 - 0.275) / np.sqrt((0.035 + 0.021875) / 2))
    assert curve.detection_cost(prior=0.5) == pytest.approx(0.25)


def test_single_fold_is_cut_into_ten_of_each_kind():
    genuine = np.arange(60) < 30
    fold = cut_folds(genuine)
    assert [list(genuine[fold == f]) for f in range(10)] == [[True] * 3 + [False] * 3] * 10
    found = verify_scores(np.where(genuine, 0.9, 0.1), genuine, np.zeros(60, int))
    assert found.accuracy == 1.0
    assert len(found.folds.accuracy) == 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_falling_order_is_that_of_a_stable_sort(dtype):
    rng = np.random.default_rng(3)
    for scores in (
        rng.normal(size=2001),
        np.round(rng.normal(size=2001), 1),
        np.array([0.0, -0.0, -np.inf, 1e-42, -1e-42, np.inf, 3.0, -3.0, -np.inf, 3.0]),
        np.zeros(0),
    ):
        scores = scores.astype(dtype)
        found = scores[falling_order(scores)]
        np.testing.assert_array_equal(found, -np.sort(-scores))
        assert sorted(falling_order(scores)) == list(range(len(scores)))
    genuine = rng.random(2001) < 0.4
    scores = np.where(rng.random(2001) < 0.05, -np.inf, np.round(rng.normal(size=2001), 1)).astype(dtype)
    walk, curve = SortedScores.of(scores, genuine), error_curve(scores, genuine)
    np.testing.assert_array_equal(walk.ascending(genuine=True), curve.genuine)
    np.testing.assert_array_equal(walk.ascending(genuine=False), curve.impostor)


def kfold(n, k):
    """Contiguous test folds as scikit-learn's KFold without shuffling makes them."""
    from sklearn.model_selection import KFold

    return [(list(train), list(test)) for train, test in KFold(k).split(np.zeros(n))]


def test_folds_are_contiguous_and_the_first_are_larger():
    assert np.bincount(contiguous_folds(23, 10)).tolist() == [len(test) for _, test in kfold(23, 10)]


def test_folds_of_unequal_size_count_by_their_comparisons():
    """The accuracy printed is the share of right decisions, so that it lies in the interval printed beside it."""
    rng = np.random.default_rng(0)
    fold = np.repeat([0, 1, 2], [450, 450, 10])
    genuine = np.arange(len(fold)) % 2 == 0
    scores = np.where(genuine, 1.0, 0.0) + rng.normal(0, 0.2, len(fold))
    scores[fold == 2] = 1 - scores[fold == 2]  # the small fold is all wrong
    found = verify_scores(scores, genuine, fold)
    body = found.to_dict()["accuracy"]
    assert body["mean"] == pytest.approx(np.mean(found.folds.match == genuine))
    assert body["interval"][0] < body["mean"] < body["interval"][1]
    assert body["mean_over_folds"] < 0.7 < 0.9 < body["mean"]
    assert body["fold_sizes"] == [450, 450, 10]
    assert body["std"] == pytest.approx(np.sqrt(np.average((np.array(body["folds"]) - body["mean"]) ** 2,
                                                           weights=[450, 450, 10])))  # fmt: skip
    even = verify_scores(scores[:900], genuine[:900]).to_dict()["accuracy"]
    assert even["mean"] == even["mean_over_folds"] == np.mean(even["folds"])
    assert even["std"] == np.std(even["folds"])
