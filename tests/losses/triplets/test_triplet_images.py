"""Strips of mined triplets."""

from __future__ import annotations

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.losses.triplets.triplet_images import sheet, strips
from visavis.types import Triplets


def test_strips_show_anchor_positive_negative_hardest_first() -> None:
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 3), np.uint8)
    t = Triplets(np.array([0, 1]), np.array([1, 0]), np.array([2, 3]))
    d = np.zeros((4, 4))
    d[0, 2], d[1, 3] = 0.9, 0.1
    shown = strips(images, t, distances=d)
    assert shown.shape == (2, 2, 9, 3)
    assert shown[:, 0, ::3, 0].tolist() == [[1, 0, 3], [0, 1, 2]]
    assert strips(images, t, limit=1)[:, 0, ::3, 0].tolist() == [[0, 1, 2]]
    page = sheet(shown, columns=2, gap=1)
    assert page.shape == (4, 21, 3)
    assert (page[1:3, 1:10] == shown[0]).all()
    assert sheet(strips(images, t, limit=0)).shape == (1, 1, 3)
    with pytest.raises(DataError, match="picture 3 of 3"):
        strips(images[:3], t)
