"""HEIC, with its package and without."""

import io

import numpy as np
import pytest
from PIL import Image

from visavis.errors import DataError
from visavis.vision import heif, images


def smooth(height=48, width=64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 3 * x, 60 + 2 * y, 200 - 2 * x], -1).clip(0, 255).astype(np.uint8)


def heic(**options):
    pillow_heif = pytest.importorskip("pillow_heif")
    pytest.importorskip("pi_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(smooth())).save(buffer, quality=95, **options)
    return buffer.getvalue()


def test_heic():
    data = heic()
    assert heif.is_heif(data)
    got = images.decode(data).astype(int)
    assert np.abs(got - smooth()).mean() < 3
    assert images.count_pixels(data) == 48 * 64
    with pytest.raises(DataError, match="64×48 pixels exceed the limit of 3,071"):
        images.decode(data, max_pixels=3071)
    with pytest.raises(DataError, match="damaged or truncated") as refused:
        images.decode(data[: len(data) // 2])
    assert "\n" not in str(refused.value)


def test_heic_without_its_package_says_what_to_type(monkeypatch):
    from visavis.errors import MissingPackageError

    def missing(_):
        raise MissingPackageError("not there")

    monkeypatch.setattr(heif, "import_runtime", missing)
    with pytest.raises(DataError, match=r'^a: HEIC: pip install "visavis\[heif\]"'):
        images.decode(b"\0\0\0\x1cftypheic" + bytes(30), name="a")
