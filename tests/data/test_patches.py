"""Patches: where they lie, and that a network's pictures can be cut from any source."""

import numpy as np
import pytest

from visavis.data.patches import DEEPID_SIZE, Patch, PatchSource, deepid_patches
from visavis.data.sources.folder import open_folder
from visavis.errors import DataError
from visavis.vision import images
from visavis.vision.alignment import template_points


def _ramp(size: int = 112) -> np.ndarray:
    """Red rises with x, green with y."""
    crop = np.zeros((size, size, 3), np.uint8)
    crop[..., 0], crop[..., 1] = np.arange(size) * 2, (np.arange(size) * 2)[:, None]
    return crop


@pytest.mark.parametrize("patch", deepid_patches())
def test_a_patch_shows_its_window(patch: Patch) -> None:
    cut = patch.cut(_ramp()[None])[0]
    assert cut.shape == (*DEEPID_SIZE, 3)
    middle = cut[27, 23]
    np.testing.assert_allclose(middle[:2] / 2, patch.center, atol=0.6)
    inside = cut[13:42, 11:36].astype(float) / 2
    np.testing.assert_allclose(np.diff(inside[..., 1], axis=0).mean(), patch.height / 55, rtol=0.03)
    np.testing.assert_allclose(np.diff(inside[..., 0], axis=1).mean(), patch.height / 55, rtol=0.03)


def test_the_patches_scale_with_the_crop() -> None:
    patch = Patch("nose", (56.0, 71.7), 52.0)
    large = images.resize(_ramp(), (224, 224))
    small = patch.cut(_ramp()[None])[0].astype(int)
    assert np.abs(patch.cut(large[None])[0].astype(int) - small).max() <= 4


def test_ten_regions_per_scale_and_color() -> None:
    assert len(deepid_patches()) == 10
    sixty = deepid_patches((1.0, 0.8, 1.2), gray=True)
    assert len({patch.name for patch in sixty}) == len(sixty) == 60
    nose = next(patch for patch in sixty if patch.name == "nose_100")
    np.testing.assert_allclose(nose.center, template_points("arcface", (112, 112))[2])
    gray = next(patch for patch in sixty if patch.gray).cut(_ramp()[None])[0]
    assert (gray[..., 0] == gray[..., 2]).all()


def test_any_source_can_be_cut(tmp_path) -> None:
    for who in ("Ann", "Bob"):
        (tmp_path / who).mkdir()
        images.write(tmp_path / who / "1.png", _ramp())
    base = open_folder(tmp_path)
    source = PatchSource(base, Patch("face", (56.0, 63.0), 108.0))
    assert source.names == base.names
    np.testing.assert_array_equal(images.decode(source.read(1)), source.image(1))


def test_patches_want_square_crops() -> None:
    with pytest.raises(DataError, match="square"):
        Patch("face", (56.0, 63.0), 108.0).cut(np.zeros((1, 112, 96, 3), np.uint8))
