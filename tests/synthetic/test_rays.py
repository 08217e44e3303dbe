"""Rays cast at a head: what hides, what casts shade."""

from dataclasses import replace

import numpy as np
import pytest

from visavis.synthetic import rays
from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.identity import generator, sample_identity
from visavis.synthetic.render import RenderedHead, build, prepare
from visavis.vision.alignment import estimate_similarity, template_points


def _plain(**changes: object) -> Conditions:
    calm = replace(sample_conditions(generator(0, 0, 0), 0.0), hat=0, glasses=0, mask=False, noise=0.0, quality=95)
    return replace(calm, **changes)  # type: ignore[arg-type]


def _cast(who: RenderedHead, now: Conditions) -> tuple[rays.Hit, np.ndarray, np.ndarray]:
    """What the pixels of a 112-pixel crop see, the surface, and the landmarks."""
    rho, _, pose, flat = prepare(who, now)
    place = estimate_similarity(flat, template_points("arcface", (112, 112)))
    return rays.cast(rho, pose, place, (112, 112)), rho, flat @ place[:, :2].T + place[:, 2]


def test_yaw_hides_one_side_and_reveals_the_other() -> None:
    who = build(sample_identity(0, 2))

    def seen(yaw: float) -> tuple[int, int]:
        """Pixels that show the head more than 50° to the left and to the right of the middle of the face."""
        hit, _, _ = _cast(who, _plain(yaw=yaw))
        angle = np.rad2deg(np.arctan2(hit.sine, hit.cosine))[hit.coverage > 0.5]
        return int((angle < -50).sum()), int((angle > 50).sum())

    right, ahead, left = seen(0.6), seen(0.0), seen(-0.6)
    assert right[0] > 1.3 * ahead[0] > 3 * left[0]
    assert left[1] > 1.3 * ahead[1] > 3 * right[1]


def test_the_nose_casts_shade() -> None:
    """Light from the right darkens the skin left of the nose more than the turning away of the surface explains."""
    who = build(replace(sample_identity(0, 2), nose_projection=1.0))
    hit, rho, points = _cast(who, _plain())
    light = np.array([0.85, -0.15, 0.5], np.float32)
    free = rays.shadow(rho, hit, light / np.linalg.norm(light))
    x, y = points[2].round().astype(int)
    assert free[y - 8 : y, x - 16 : x - 8].mean() < 0.6
    assert free[y - 8 : y, x + 10 : x + 18].mean() > 0.9


def test_places_beyond_what_opencv_takes_a_side_are_looked_up_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rho = rng.normal(size=(60, 80)).astype(np.float32)
    column, row = (rng.uniform(-5, 85, (50, 47)).astype(np.float32) for _ in range(2))
    whole = rays._sampled(rho, column, row)
    monkeypatch.setattr(rays, "_REMAP_SIDE", 13)
    assert np.array_equal(rays._sampled(rho, column, row), whole)
