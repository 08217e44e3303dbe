"""Who is who: the factors of a generated person, and that nothing of a picture's conditions tells them."""

from dataclasses import astuple, replace

import numpy as np
import pytest

from visavis.synthetic.conditions import sample_conditions
from visavis.synthetic.identity import FACTORS, generator, sample_identity
from visavis.synthetic.render import build, draw


def test_a_person_has_independent_factors() -> None:
    people = np.array([astuple(sample_identity(0, i))[: len(FACTORS)] for i in range(3000)])
    assert len(FACTORS) >= 24
    assert np.abs(people).max() <= 1
    np.testing.assert_allclose(people.std(0), 3**-0.5, atol=0.02)  # uniform on [-1, 1]
    correlation = np.corrcoef(people.T) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 0.09  # 5 standard errors


def test_people_differ_by_seed_and_number() -> None:
    assert len({sample_identity(s, i) for s in range(5) for i in range(50)}) == 250


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
