"""InsightFace's verification sets (lfw.bin, cfp_fp.bin, agedb_30.bin ...): read without running them, and written.

The file is a pickle of `(images, same)`: encoded pictures (bytes, or uint8 arrays of them) two by two, and one bool
a pair, in folds that follow one another (reference-systems row A6).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from visavis._moved import former_arguments
from visavis.data.sources.base import Source
from visavis.data.sources.plain_pickle import Array, Blob, loads, materialize
from visavis.errors import DataError
from visavis.files import atomic_file
from visavis.types import BoolArray, IntArray
from visavis.vision import images


class BinSource(Source):
    """The pictures of a .bin in their order; pair k is pictures 2k and 2k + 1.

    The file names nobody: pictures joined by genuine pairs, or equal byte for byte, are taken as one identity, so that
    one person may be counted as several. Names are `IDENTITY/NUMBER.jpg`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map = _mapped(path)
        self.images, self.genuine = _parse(self._map, str(path))
        owner = _components(len(self.images), self.genuine, self.images)
        self.labels = np.unique(owner, return_inverse=True)[1].astype(np.int64)
        self.identities = tuple(f"{k:05d}" for k in range(int(self.labels.max()) + 1))
        self.names = tuple(f"{self.identities[k]}/{i:06d}.jpg" for i, k in enumerate(self.labels.tolist()))

    def __reduce__(self) -> tuple[type[BinSource], tuple[Path]]:
        return BinSource, (self.path,)

    def read(self, index: int) -> bytes:
        """The picture's bytes; one that is stored decoded, (H, W, 3), comes as PNG."""
        stored = self.images[index]
        if isinstance(stored, Blob):
            return self._map[stored.offset : stored.offset + stored.length]
        if isinstance(stored, bytes):
            return stored
        array = materialize(stored, self._map, name=f"{self.path}, picture {index}")
        if array.dtype != np.uint8 and array.dtype != np.int8:
            raise DataError(f"{self.path}, picture {index}: expected bytes, got an array of {array.dtype}")
        if array.ndim == 1:
            return array.tobytes()
        if array.ndim == 3 and array.shape[2] == 3:
            return images.encode(array.astype(np.uint8), ".png")
        raise DataError(f"{self.path}, picture {index}: expected encoded bytes or (H, W, 3), got shape {array.shape}")


def open_bin(path: Path) -> BinSource:
    """Open a .bin verification set; see `BinSource`.

    Raises:
        DataError: damaged, or a pickle that asks for more than plain values (nothing of it is run).
    """
    return BinSource(path)


@former_arguments(pictures="images")
def write_bin(images: Iterable[bytes], genuine: Iterable[bool], path: Path) -> Iterator[int]:
    """Write a .bin from encoded pictures, two a pair, and one bool a pair; yields the pictures done, after each.

    The pickle (protocol 3, as InsightFace's own) is written as it comes: memory does not grow with the set.

    Raises:
        DataError: the numbers do not fit, or the file cannot be written.
    """
    with atomic_file(path) as file:
        file.write(b"\x80\x03](")
        count = 0
        for count, image in enumerate(images, 1):
            _write_bytes(file, image)
            yield count
        flags = b"".join(b"\x88" if same else b"\x89" for same in genuine)
        if count != 2 * len(flags) or not count:
            raise DataError(f"{path}: {len(flags)} pairs want {2 * len(flags)} pictures (at least 2), got {count}")
        file.write(b"e](" + flags + b"e\x86.")


def _write_bytes(file: BinaryIO, data: bytes) -> None:
    if len(data) >= 1 << 32:
        raise DataError(f"a picture of {len(data):,} bytes does not fit a .bin")
    file.write(b"C" + bytes([len(data)]) if len(data) < 256 else b"B" + struct.pack("<I", len(data)))
    file.write(data)


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise DataError(f"{path}: cannot open the verification set ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path}: expected a verification set, got an empty file") from error


Stored = Blob | bytes | Array


def _parse(data: mmap.mmap, name: str) -> tuple[list[Stored], BoolArray]:
    value = loads(data, name=name)
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not isinstance(value[0], (list, tuple)):
        raise DataError(f"{name}: expected a pickle of (pictures, same), got {type(value).__name__}")
    images, same = list(value[0]), value[1]
    if isinstance(same, Array):
        same = materialize(same, data, name=name).tolist()
    if not isinstance(same, (list, tuple)) or not all(type(v) in (bool, int) and v in (0, 1) for v in same):
        raise DataError(f"{name}: expected one bool a pair")
    for i, image in enumerate(images):
        if not isinstance(image, (Blob, bytes, Array)):
            raise DataError(f"{name}, picture {i}: expected bytes, got {type(image).__name__}")
    if len(images) != 2 * len(same) or not same:
        raise DataError(f"{name}: {len(same)} pairs want {2 * len(same)} pictures (at least 2), got {len(images)}")
    return images, np.array(same, bool)


def _components(count: int, genuine: BoolArray, images: list[Stored]) -> IntArray:
    """One number per set of pictures joined by genuine pairs or stored once (a pickle shares equal objects)."""
    parent = np.arange(count)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    seen: dict[object, int] = {}
    for i, image in enumerate(images):
        key = (image.offset, image.length) if isinstance(image, Blob) else id(image)
        parent[root(i)] = root(seen.setdefault(key, i))
    for k in np.flatnonzero(genuine).tolist():
        a, b = sorted((root(2 * k), root(2 * k + 1)))
        parent[b] = a
    return np.array([root(i) for i in range(count)])
