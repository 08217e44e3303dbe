"""The threshold of a card, and how sure the rate is that it stands for."""

import math

import pytest

from visavis.deploy.gallery.records import Candidate, decide
from visavis.deploy.operating_point import operating_point
from visavis.models.card import ModelCard
from visavis.vision.preprocessing import PreprocessSpec


def card(**thresholds):
    entries = {key.replace("_", "-"): entry for key, entry in thresholds.items()}
    return ModelCard("m", "fake", 8, PreprocessSpec(), weights_digest="d" * 64, thresholds=entries)


def interval(made, fmr=1e-3):
    point = operating_point(made, fmr=fmr)
    assert point is not None
    return point.fmr_interval


def test_the_counting_error_alone_where_nothing_else_is_known():
    assert interval(card(**{"1e_3": {"threshold": 0.4, "fmr_interval": [5e-4, 2e-3]}})) == (5e-4, 2e-3)
    assert interval(card(**{"1e_3": {"threshold": 0.4}})) is None
    assert interval(card(**{"1e_3": {"threshold": 0.4, "interval": [0.38, 0.43]}})) is None


def test_the_interval_of_the_threshold_is_carried_through_in_rates():
    """From 1e-2 at 0.3 to 1e-3 at 0.4: a tenth of the rate for 0.1 of similarity, so 0.03 is a factor 10^0.3."""
    made = card(
        **{
            "1e_3": {"threshold": 0.4, "interval": [0.37, 0.43], "fmr_interval": [0.9e-3, 1.1e-3]},
            "1e_2": {"threshold": 0.3},
        }
    )
    low, high = interval(made)
    assert high == pytest.approx(1e-3 * 10**0.3)
    assert low == pytest.approx(1e-3 * 10**-0.3)


def test_the_wider_of_the_two_holds():
    made = card(
        **{
            "1e_3": {"threshold": 0.4, "interval": [0.399, 0.401], "fmr_interval": [2e-4, 5e-3]},
            "1e_2": {"threshold": 0.3},
        }
    )
    assert interval(made) == (2e-4, 5e-3)


def test_thresholds_that_do_not_fall_with_the_rate_tell_nothing():
    entries = {"1e_3": {"threshold": 0.4, "interval": [0.3, 0.5]}, "1e_2": {"threshold": 0.45}}
    assert interval(card(**entries)) is None


def test_no_rate_is_above_one():
    entries = {"1e_1": {"threshold": 0.2, "interval": [0.0, 0.9]}, "1e_2": {"threshold": 0.1 + 0.2}}
    low, high = interval(card(**entries), 1e-1)
    assert 0 < low < 0.1 < high == 1.0


def test_identification_states_about_how_often_and_between_what():
    [answer] = decide([(Candidate(1, "Ada", 0.5),)], 5, 0.4, 1e-3, (5e-4, 4e-3))
    assert answer.fpir == pytest.approx(1 - 0.999**5)
    assert answer.fpir_interval == pytest.approx((1 - 0.9995**5, 1 - 0.996**5))
    assert math.isclose(answer.fpir, 0.005, rel_tol=0.01)
    [bare] = decide([()], 5, 0.4, 1e-3)
    assert bare.fpir_interval is None
    [nothing] = decide([()], 5, None, None, (5e-4, 4e-3))
    assert nothing.fpir_interval is None
