"""Generated pictures: the same everywhere, with depth and shade, recognizable to a detector, not to raw pixels."""

from dataclasses import replace

import numpy as np
import pytest

from visavis import synthetic
from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.identity import generator, sample_identity
from visavis.synthetic.render import build, draw
from visavis.vision.alignment import template_points


def _plain(**changes: object) -> Conditions:
    calm = replace(sample_conditions(generator(0, 0, 0), 0.0), hat=0, glasses=0, mask=False, noise=0.0, quality=95)
    return replace(calm, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [56, 112, 160])
def test_the_landmarks_lie_near_the_template(size: int) -> None:
    image, landmarks = synthetic.face(0, 3, 2, size=size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert landmarks.shape == (5, 2)
    assert np.abs(landmarks - template_points("arcface", (size, size))).max() < 0.15 * size


def test_the_landmarks_point_at_the_features() -> None:
    """An iris is darker than the skin two widths of it below; the mouth's corners lie on its seam."""
    who, now = build(sample_identity(0, 1)), _plain()
    image, points = draw(who, now, np.random.default_rng(0), 224)
    gray = image.astype(float).mean(2)
    for x, y in points[:2].round().astype(int):
        assert gray[y - 3 : y + 4, x - 3 : x + 4].min() < 0.6 * gray[y + 24 : y + 30, x - 3 : x + 4].mean()


def test_yaw_moves_the_nose_over_the_cheek() -> None:
    """What stands out moves more than what lies behind it: depth, not a turned picture."""
    who = build(sample_identity(0, 2))
    shift = []
    for yaw in (-0.5, 0.0, 0.5):
        _, points = draw(who, _plain(yaw=yaw), np.random.default_rng(0), 112)
        eyes = points[:2].mean(0)
        shift.append((points[2] - eyes)[0] / np.linalg.norm(points[1] - points[0]))
    assert shift[0] < -0.3 < shift[1] < 0.3 < shift[2]
