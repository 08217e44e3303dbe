"""An image's conditions do not tell the person; what is worn and the pose keep their rates."""

from dataclasses import astuple, fields

import numpy as np
import pytest

from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.identity import FACTORS, generator, sample_identity

PEOPLE, IMAGES = 400, 8


def _numbers(now: Conditions) -> list[float]:
    return [float(v) for field in fields(now) for v in np.ravel(getattr(now, field.name))]


@pytest.fixture(scope="module")
def conditions() -> np.ndarray:
    drawn = [[_numbers(sample_conditions(generator(3, i, k), 1.0)) for k in range(IMAGES)] for i in range(PEOPLE)]
    return np.array(drawn)


def test_conditions_do_not_depend_on_the_person(conditions: np.ndarray) -> None:
    """One-way analysis of variance: were a condition tied to the person, its F would leave 1."""
    between = IMAGES * conditions.mean(1).var(0, ddof=1)
    within = conditions.var(1, ddof=1).mean(0)
    varies = within > 0
    assert varies.sum() >= 30
    f = between[varies] / within[varies]
    assert np.abs(f - 1).max() < 0.35  # the standard error of F is 0.076


def test_conditions_do_not_correlate_with_any_factor(conditions: np.ndarray) -> None:
    people = np.array([astuple(sample_identity(3, i))[: len(FACTORS)] for i in range(PEOPLE)])
    means = conditions.mean(1)
    means = means[:, means.std(0) > 0]
    correlation = np.corrcoef(people.T, means.T)[: len(FACTORS), len(FACTORS) :]
    assert np.abs(correlation).max() < 5 / PEOPLE**0.5


def test_pose_reaches_its_limits_and_no_further() -> None:
    yaw = np.rad2deg([sample_conditions(generator(0, 0, k), 1.0).yaw for k in range(600)])
    assert 39 < yaw.max() <= 40.001
    assert -40.001 <= yaw.min() < -39
    assert abs(yaw.mean()) < 3


def test_things_worn_occur_at_the_rates_meant() -> None:
    drawn = [sample_conditions(generator(1, 0, k), 1.0) for k in range(1500)]
    assert np.mean([now.glasses > 0 for now in drawn]) == pytest.approx(0.15, abs=0.03)
    assert np.mean([now.hat > 0 for now in drawn]) == pytest.approx(0.05, abs=0.02)
    assert np.mean([now.mask for now in drawn]) == pytest.approx(0.015, abs=0.01)
