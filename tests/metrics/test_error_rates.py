"""The exact figures against slow, plain implementations of their definitions, and against scikit-learn."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import error_curve, rate_name
from visavis.metrics.kfold import SortedScores, best_threshold, cut_folds, falling_order, fold_accuracy
from visavis.metrics.verification import verify_scores


def random_scores(seed, n=400, *, levels=0, failed=0):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.4
    scores = rng.normal(size=n) * 0.2 + genuine * 0.4
    if levels:
        scores = np.round(scores * levels) / levels
    scores[rng.choice(n, failed, replace=False)] = np.nan
    return scores, genuine


def plain_rates(scores, genuine, threshold):
    """Counts by looking at every comparison; NaN is never ≥ anything."""
    match = [s >= threshold for s in scores]
    fm = sum(m and not g for m, g in zip(match, genuine, strict=True))
    tm = sum(m and g for m, g in zip(match, genuine, strict=True))
    return fm / sum(not g for g in genuine), tm / sum(genuine)


def plain_tmr_at_fmr(scores, genuine, fmr):
    best = 0.0
    for t in scores[~np.isnan(scores)]:
        f, tmr = plain_rates(scores, genuine, t)
        if f <= fmr + 1e-12:
            best = max(best, tmr)
    return best


def plain_auc(scores, genuine):
    s = np.where(np.isnan(scores), -np.inf, scores)
    total = 0.0
    for g in s[genuine]:
        for i in s[~genuine]:
            total += 1.0 if g > i else 0.5 if g == i else 0.0
    return total / (genuine.sum() * (~genuine).sum())


def plain_eer(scores, genuine):
    """SortedScores the ROC's points from strict to lax, −inf last; the first segment that crosses fmr = fnmr."""
    s = np.where(np.isnan(scores), -np.inf, scores)
    points = [(0.0, 1.0)]
    for t in sorted(set(s), reverse=True):
        match = s >= t
        points.append((match[~genuine].mean(), 1 - match[genuine].mean()))
    for (f0, n0), (f1, n1) in pairwise(points):
        if f1 >= n1:
            a, b = f0 - n0, f1 - n1
            return f0 + (f1 - f0) * (-a / (b - a))
    raise AssertionError


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


@pytest.mark.parametrize("failed", [0, 30])
@pytest.mark.parametrize("levels", [0, 6])
@pytest.mark.parametrize("seed", range(4))
def test_rates_equal_their_definitions(seed, levels, failed):
    scores, genuine = random_scores(seed, levels=levels, failed=failed)
    curve = error_curve(scores, genuine)
    for fmr in (0.5, 0.1, 0.03, 0.01):
        assert curve.at_fmr(fmr).tmr == pytest.approx(plain_tmr_at_fmr(scores, genuine, fmr), abs=1e-12)
        point = curve.at_fmr(fmr)
        assert (point.fmr, point.tmr) == pytest.approx(plain_rates(scores, genuine, point.threshold), abs=1e-12)
    assert curve.auc == pytest.approx(plain_auc(scores, genuine), abs=1e-12)
    assert curve.eer == pytest.approx(plain_eer(scores, genuine), abs=1e-12)


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_roc_and_auc_equal_scikit_learn(seed, levels):
    scores, genuine = random_scores(seed, 3000, levels=levels)
    curve = error_curve(scores, genuine)
    assert curve.auc == pytest.approx(roc_auc_score(genuine, scores), abs=1e-12)
    fpr, tpr, thresholds = roc_curve(genuine, scores, drop_intermediate=False)
    ours = curve.roc()
    np.testing.assert_allclose(ours[0][1:], thresholds[1:], atol=1e-12)
    np.testing.assert_allclose(ours[1], fpr, atol=1e-12)
    np.testing.assert_allclose(ours[2], tpr, atol=1e-12)


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


def test_a_tie_of_genuine_and_impostor_counts_half_in_the_auc_and_is_accepted_whole():
    curve = error_curve(np.array([0.5, 0.5]), np.array([True, False]))
    assert curve.auc == 0.5
    assert curve.eer == 0.5
    assert curve.at_fmr(0.0).tmr == 0.0


def test_unsupported_rates_are_marked_and_failures_count_as_non_matches():
    scores, genuine = random_scores(5, 300, failed=20)
    found = verify_scores(scores, genuine)
    assert found.tmr_at_fmr["1e-1"] is not None
    assert found.tmr_at_fmr["1e-3"] is None
    body = found.to_dict()
    assert body["comparisons"]["failed_to_acquire"] == 20
    assert body["tmr_at_fmr"]["1e-3"] is None
    lost = np.isnan(scores) & genuine
    assert found.curve.at(-1e9).tmr == pytest.approx(1 - lost.sum() / genuine.sum())


def test_single_fold_is_cut_into_ten_of_each_kind():
    genuine = np.arange(60) < 30
    fold = cut_folds(genuine)
    assert [list(genuine[fold == f]) for f in range(10)] == [[True] * 3 + [False] * 3] * 10
    found = verify_scores(np.where(genuine, 0.9, 0.1), genuine, np.zeros(60, int))
    assert found.accuracy == 1.0
    assert len(found.folds.accuracy) == 10


@pytest.mark.parametrize("genuine", [np.ones(5, bool), np.zeros(5, bool)])
def test_one_kind_of_comparison_is_refused(genuine):
    with pytest.raises(ProtocolError, match="genuine and impostor"):
        verify_scores(np.arange(5.0), genuine)


@pytest.mark.parametrize(
    ("rate", "name"), [(1e-3, "1e-3"), (0.1, "1e-1"), (5e-4, "5e-4"), (1e-6, "1e-6"), (1.0, "1e0")]
)
def test_rate_names(rate, name):
    assert rate_name(rate) == name


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
    np.testing.assert_array_equal(walk.rising(genuine=True), curve.genuine)
    np.testing.assert_array_equal(walk.rising(genuine=False), curve.impostor)
