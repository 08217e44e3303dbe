"""SphereFace's random window (row S2): whole pixels of a larger crop, in the middle when not random."""

from __future__ import annotations

import numpy as np
import pytest

from visavis.data.augment.augmentation import Augmentation
from visavis.errors import RecipeError


def place(window: np.ndarray, whole: np.ndarray) -> tuple[int, int]:
    """Where the window lies in the whole."""
    height, width = window.shape[:2]
    for top in range(whole.shape[0] - height + 1):
        for left in range(whole.shape[1] - width + 1):
            if np.array_equal(whole[top : top + height, left : left + width], window):
                return top, left
    raise AssertionError("the window is no part of the picture")


@pytest.fixture
def padded() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (200, 116, 100, 3), dtype=np.uint8)


def test_half_of_the_windows_are_random_and_half_in_the_middle(padded: np.ndarray) -> None:
    out = Augmentation(flip=0, random_crop=0.5)(padded, np.random.default_rng(1), size=(112, 96))
    places = [place(w, p) for w, p in zip(out, padded, strict=True)]
    assert {top for top, _ in places} == {left for _, left in places} == {0, 1, 2, 3, 4}
    middle = sum(p == (2, 2) for p in places)
    assert abs(middle - 200 * (0.5 + 0.5 / 25)) < 4 * (200 * 0.52 * 0.48) ** 0.5


def test_a_tiny_chance_of_a_window_cuts_the_middle_where_none_shrinks(padded: np.ndarray) -> None:
    cut = Augmentation(flip=0, random_crop=1e-9)(padded[:5], np.random.default_rng(1), size=(112, 96))
    assert np.array_equal(cut, padded[:5, 2:-2, 2:-2])
    shrunk = Augmentation(flip=0)(padded[:5], np.random.default_rng(1), size=(112, 96))
    assert not np.array_equal(shrunk, cut)


def test_odd_differences_stay_on_whole_pixels() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (50, 37, 35, 3), dtype=np.uint8)
    out = Augmentation(flip=0, random_crop=1.0)(whole, np.random.default_rng(1), size=(32, 32))
    places = [place(w, p) for w, p in zip(out, whole, strict=True)]
    assert {top for top, _ in places} == set(range(6))
    assert {left for _, left in places} == set(range(4))


def test_a_window_larger_than_the_crop_is_refused(padded: np.ndarray) -> None:
    with pytest.raises(RecipeError, match="crops of at least 118×96, got 116×100"):
        Augmentation(random_crop=0.5)(padded, np.random.default_rng(0), size=(118, 96))
