import numpy as np
import pytest

from visavis.data.augmentation import Augmentation
from visavis.errors import RecipeError

STRONG = {"flip": 0.5, "shift": 0.1, "scale": 0.1, "rotate": 10, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3,
          "grey": 0.2, "erase": 0.5, "low_resolution": 0.5, "blur": 0.5}  # fmt: skip


@pytest.fixture
def crops():
    ramp = np.linspace(0, 255, 112)
    picture = np.stack([np.tile(ramp, (112, 1)), np.tile(ramp[:, None], (1, 112)), np.full((112, 112), 90.0)], -1)
    return np.repeat(picture[None].astype(np.uint8), 6, 0)


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


def test_grey_takes_all_colour_away(crops):
    out = Augmentation(flip=0, grey=1)(crops, np.random.default_rng(0), size=(112, 112)).astype(int)
    assert np.abs(out - out[..., :1]).max() <= 1


def test_shift_moves_by_at_most_its_fraction(crops):
    dot = np.zeros((40, 112, 112, 3), np.uint8)
    dot[:, 55:57, 55:57] = 255
    out = Augmentation(flip=0, shift=0.1)(dot, np.random.default_rng(0), size=(112, 112))
    centres = np.array([np.argwhere(p[..., 0] > 60).mean(0) for p in out])
    assert np.abs(centres - 55.5).max() <= 11.2 + 0.5
    assert centres.std(0).min() > 3


def test_erasing_covers_at_most_its_area():
    white = np.full((60, 64, 64, 3), 255, np.uint8)
    out = Augmentation(flip=0, erase=1, erase_area=0.2)(white, np.random.default_rng(0), size=(64, 64))
    share = (out != 255).any(-1).mean((1, 2))
    assert share.mean() > 0.02
    assert share.max() <= 0.21


@pytest.mark.parametrize("wrong", [{"flip": 1.2}, {"shift": -0.1}, {"rotate": 190}])
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"augment.{next(iter(wrong))}"):
        Augmentation(**wrong)
