"""HEIC, which telephones write: decoded by libheif where the extra `heif` is installed."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from visavis.errors import DataError, MissingPackageError
from visavis.runtimes import import_runtime
from visavis.vision.image_formats import damaged

_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def is_heif(data: bytes) -> bool:
    """Whether a file begins as HEIC does; AVIF, which shares two of its marks, is Pillow's."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS and b"avif" not in data[8:64]


def open_heif(data: bytes, name: str) -> Any:
    """The first picture of a HEIC file, not yet decoded; `size` is (width, height), and it stands upright.

    Raises:
        DataError: damaged, or pi-heif is not installed.
    """
    try:
        pi_heif = import_runtime("pi_heif")
    except MissingPackageError as error:
        raise DataError(f'{name}: HEIC: pip install "visavis[heif]", or save it as JPEG') from error
    try:
        opened = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        _ = opened.size  # that there is a first picture shows here
        return opened
    except Exception as error:  # libheif's errors come as ValueError, EOFError, RuntimeError ...
        raise damaged(name, error) from error


def load_heif(opened: Any, name: str) -> Image.Image:
    """Decode it.

    Raises:
        DataError: damaged.
    """
    try:
        return opened.to_pillow()
    except Exception as error:
        raise damaged(name, error) from error
