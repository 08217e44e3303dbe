"""Thresholds, probabilities and groups against scikit-learn and against counting."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.metrics.calibration import calibrate_threshold
from visavis.metrics.intervals import subject_weights


def scores_of(seed, n=600):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.5
    return rng.normal(size=n) * 0.15 + genuine * 0.35, genuine


def test_a_threshold_keeps_its_rate_and_says_what_it_rests_on():
    scores, genuine = scores_of(0, 4000)
    scores[:10] = np.nan
    subjects = (np.arange(4000) % 97, (np.arange(4000) * 7) % 97)
    found = calibrate_threshold(scores, genuine, 0.01, digest="abc", subjects=subjects)
    impostors = scores[~genuine]
    assert found.fmr == np.mean(impostors >= found.threshold) <= 0.01
    assert found.tmr == np.mean(scores[genuine] >= found.threshold)
    lower = np.nextafter(np.sort(impostors[impostors < found.threshold])[-1], -1)
    assert np.mean(impostors >= lower) > 0.01  # nothing more lax keeps the rate
    assert found.threshold_interval[0] <= found.threshold <= found.threshold_interval[1]
    assert found.fmr_interval[0] < found.fmr < found.fmr_interval[1]
    assert found.to_dict()["set_digest"] == "abc"


def test_the_interval_of_a_threshold_draws_both_subjects_of_a_pair():
    """By hand: a pair counts as often as its first subject was drawn times its second, one of a subject alone once."""
    rng = np.random.default_rng(2)
    people, rate, replicates = 9, 0.1, 60
    first, second = (side.ravel() for side in np.meshgrid(np.arange(people), np.arange(people)))
    scores = rng.normal(size=people)[first] + 2 * rng.normal(size=people)[second] + 0.1 * rng.normal(size=len(first))
    genuine = np.append(np.zeros(len(first), bool), [True, True])
    everything, subjects = np.append(scores, [9.0, 9.0]), (np.append(first, [0, 1]), np.append(second, [0, 1]))
    thresholds = []
    for drawn in subject_weights(people, replicates=replicates, seed=5):
        copies = [drawn[a] if a == b else drawn[a] * drawn[b] for a, b in zip(first, second, strict=True)]
        again = np.sort(np.repeat(scores, copies))[::-1]
        allowed = int(rate * len(again) + 1e-9)
        refused = again[allowed]  # the first that is one too many
        if (scores > refused).any():  # half way to the next of the set
            thresholds.append((refused + scores[scores > refused].min()) / 2)
    found = calibrate_threshold(everything, genuine, rate, subjects=subjects, replicates=replicates, seed=5)
    assert len(thresholds) > replicates / 2
    assert found.threshold_interval == pytest.approx(np.quantile(thresholds, [0.025, 0.975]).tolist(), rel=1e-12)


def test_a_rate_without_impostors_is_refused_with_the_number_needed():
    scores, genuine = scores_of(0, 400)
    with pytest.raises(ProtocolError, match="at least 10,000 impostor comparisons"):
        calibrate_threshold(scores, genuine, 1e-4)
    with pytest.raises(ProtocolError, match="between 0 and 1"):
        calibrate_threshold(scores, genuine, 1.0)
