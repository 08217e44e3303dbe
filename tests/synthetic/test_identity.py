"""Who is who: the factors of a generated person, and that nothing of a picture's conditions tells them."""

from dataclasses import astuple, fields, replace

import numpy as np
import pytest

from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.identity import FACTORS, generator, sample_identity
from visavis.synthetic.render import build, draw

PEOPLE, PICTURES = 400, 8


def _numbers(now: Conditions) -> list[float]:
    return [float(v) for field in fields(now) for v in np.ravel(getattr(now, field.name))]


@pytest.fixture(scope="module")
def conditions() -> np.ndarray:
    drawn = [[_numbers(sample_conditions(generator(3, i, k), 1.0)) for k in range(PICTURES)] for i in range(PEOPLE)]
    return np.array(drawn)


def test_a_person_has_independent_factors() -> None:
    people = np.array([astuple(sample_identity(0, i))[: len(FACTORS)] for i in range(3000)])
    assert len(FACTORS) >= 24
    assert np.abs(people).max() <= 1
    np.testing.assert_allclose(people.std(0), 3**-0.5, atol=0.02)  # uniform on [-1, 1]
    correlation = np.corrcoef(people.T) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 0.09  # 5 standard errors


def test_people_differ_by_seed_and_number() -> None:
    assert len({sample_identity(s, i) for s in range(5) for i in range(50)}) == 250


def test_conditions_do_not_depend_on_the_person(conditions: np.ndarray) -> None:
    """One-way analysis of variance: were a condition tied to the person, its F would leave 1."""
    between = PICTURES * conditions.mean(1).var(0, ddof=1)
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


@pytest.mark.parametrize("factor", FACTORS)
def test_every_factor_can_be_seen(factor: str) -> None:
    """From one end of its range to the other a factor changes the picture, with all else equal."""
    visible = {"beard": 0.5, "moustache": 0.3, "hair_length": -0.25, "fringe": 0.5, "skin_tone": -0.4, "parting": 0.5}
    middle = replace(sample_identity(0, 0), **(dict.fromkeys(FACTORS, 0.0) | visible))
    now = replace(sample_conditions(generator(0, 0, 0), 0.0), yaw=0.2, hat=0, glasses=0, mask=False)
    ends = [
        draw(build(replace(middle, **{factor: end})), now, np.random.default_rng(0), 112)[0].astype(int)
        for end in (-1.0, 1.0)
    ]
    changed = np.abs(ends[0] - ends[1]).max(2)
    assert (changed > 12).sum() >= 12  # pixels
