import cv2
import numpy as np
import pytest

from visavis.data.augment.augmentation import Augmentation
from visavis.data.augment.generic_head import GenericHead
from visavis.errors import RecipeError

STRONG = {"flip": 0.5, "shift": 0.1, "scale": 0.1, "rotate": 10, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3,
          "grayscale": 0.2, "random_erasing": 0.5, "low_resolution": 0.5, "blur": 0.5}  # fmt: skip


@pytest.fixture
def crops():
    ramp = np.linspace(0, 255, 112)
    image = np.stack([np.tile(ramp, (112, 1)), np.tile(ramp[:, None], (1, 112)), np.full((112, 112), 90.0)], -1)
    return np.repeat(image[None].astype(np.uint8), 6, 0)


def test_nothing_asked_leaves_the_picture_as_it_is(crops):
    out = Augmentation(flip=0)(crops, np.random.default_rng(0), size=(112, 112))
    np.testing.assert_array_equal(out, crops)


def test_halving_averages_two_by_two(crops):
    noise = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    out = Augmentation(flip=0)(noise, np.random.default_rng(0), size=(56, 56))
    means = noise.reshape(2, 56, 2, 56, 2, 3).mean((2, 4))
    assert np.abs(out - means).max() <= 1


def test_flip_is_the_exact_mirror(crops):
    out = Augmentation(flip=1)(crops, np.random.default_rng(0), size=(112, 112))
    np.testing.assert_array_equal(out, crops[:, :, ::-1])


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(crops):
    strong = Augmentation(**STRONG)
    first, again, other = (strong(crops, np.random.default_rng(s), size=(56, 56)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3
    assert first.dtype == np.uint8
    assert first.shape == (6, 56, 56, 3)


def test_gray_takes_all_color_away(crops):
    out = Augmentation(flip=0, grayscale=1)(crops, np.random.default_rng(0), size=(112, 112)).astype(int)
    assert np.abs(out - out[..., :1]).max() <= 1


def test_shift_moves_by_at_most_its_fraction(crops):
    dot = np.zeros((40, 112, 112, 3), np.uint8)
    dot[:, 55:57, 55:57] = 255
    out = Augmentation(flip=0, shift=0.1)(dot, np.random.default_rng(0), size=(112, 112))
    centers = np.array([np.argwhere(p[..., 0] > 60).mean(0) for p in out])
    assert np.abs(centers - 55.5).max() <= 11.2 + 0.5
    assert centers.std(0).min() > 3


def test_erasing_covers_at_most_its_area():
    white = np.full((60, 64, 64, 3), 255, np.uint8)
    out = Augmentation(flip=0, random_erasing=1, random_erasing_area=0.2)(
        white, np.random.default_rng(0), size=(64, 64)
    )
    share = (out != 255).any(-1).mean((1, 2))
    assert share.mean() > 0.02
    assert share.max() <= 0.21


@pytest.mark.parametrize("wrong", [{"flip": 1.2}, {"shift": -0.1}, {"rotate": 190}])
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"augment.{next(iter(wrong))}"):
        Augmentation(**wrong)


def _dots(*places):
    """A black ArcFace crop with white 3 × 3 dots at (x, y)."""
    image = np.zeros((112, 112, 3), np.uint8)
    for x, y in places:
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
    return image


def _center(image, around, reach=12):
    x, y = around
    window = image[y - reach : y + reach + 1, x - reach : x + reach + 1, 0].astype(float)
    rows, columns = np.mgrid[y - reach : y + reach + 1, x - reach : x + reach + 1]
    return np.array([(window * columns).sum(), (window * rows).sum()]) / window.sum()


@pytest.mark.parametrize("degrees", [-15, 10, 20])
def test_a_turned_head_moves_its_points_as_rotation_says(degrees):
    """x' = x cos θ + z sin θ, written out for the nose tip and a cheek, less the landmarks' mean shift."""
    head = GenericHead((112, 112))
    y, x = np.mgrid[0:112, 0:112].astype(np.float32)
    angle = np.deg2rad(degrees)
    maps = head.turned(x, y, yaw=angle, pitch=0.0)
    for point in ((55, 71), (38, 80)):
        turned = cv2.remap(_dots(point), *maps, cv2.INTER_LINEAR)
        z = head.depth[point[1], point[0]]
        expected = 55.5 + (point[0] - 55.5) * np.cos(angle) + (z - head.landmark_depth) * np.sin(angle)
        seen = _center(turned, point)
        assert seen[0] == pytest.approx(expected, abs=0.6)
        assert seen[1] == pytest.approx(point[1], abs=0.3)


def test_no_turn_and_no_tilt_change_nothing():
    head = GenericHead((112, 96))
    y, x = np.mgrid[0:112, 0:96].astype(np.float32)
    same = head.turned(x, y, yaw=0.0, pitch=0.0)
    np.testing.assert_allclose(same[0], x, atol=1e-4)
    np.testing.assert_allclose(same[1], y, atol=1e-4)
    np.testing.assert_allclose(head.shading(x, y, side=0.0, above=0.0), 1)


def test_light_from_the_side_brightens_that_side_and_darkens_the_other():
    head = GenericHead((112, 112))
    y, x = np.mgrid[0:112, 0:112].astype(np.float32)
    shading = head.shading(x, y, side=0.4, above=0.0)
    assert (np.diff(shading, axis=1) >= 0).all()
    assert shading[60, 55:57].mean() == pytest.approx(1, abs=0.01)  # the middle keeps its brightness
    assert shading[60, 97] == pytest.approx(1.4, abs=0.02)  # one half-width from the middle


def test_turning_lighting_and_warping_repeat_with_the_seed_and_keep_the_frame(crops):
    bent = Augmentation(flip=0, yaw=25, pitch=12, relight=0.4, warp=1.0)
    first, again, other = (bent(crops, np.random.default_rng(s), size=(56, 56)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3
    flipped = Augmentation(flip=1, yaw=1e-9)(crops, np.random.default_rng(0), size=(112, 112)).astype(int)
    assert np.abs(flipped - crops[:, :, ::-1]).max() <= 1  # the path by maps gives what the path by matrices gives


def test_light_tilts_and_heads_turn_by_the_deviations_stated():
    bends = Augmentation(yaw=25, pitch=12, relight=0.3)._bends(np.random.default_rng(0), 4000)
    for values, deviation in (([b.side for b in bends], 0.2), ([b.above for b in bends], 0.2)):
        assert abs(np.mean(values)) < 0.02
        assert np.std(values) == pytest.approx(deviation, rel=0.05)
