"""A decoded cache: all pictures of a source as one memory-mapped uint8 array, built once, rebuilt when they change."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.files import lock_file, write_atomically
from visavis.types import ByteArray
from visavis.vision import images

_CHUNK = 256


class OtherShape(DataError):
    """A picture whose shape is not that of the others."""


def state_of(source: Source) -> str:
    """A digest that changes when the source does: names, labels, and size and time of the file of every picture."""
    digest = hashlib.sha256(repr((type(source).__name__, str(source.path), len(source))).encode())
    digest.update(source.labels.tobytes())
    if source.path.is_file():
        status = source.path.stat()
        digest.update(repr((status.st_size, status.st_mtime_ns)).encode())
        digest.update("\0".join(source.names).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()
    for name in source.names:
        digest.update(name.encode("utf-8", "surrogateescape"))
        try:
            status = os.stat(source.path / name)
            digest.update(f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
        except OSError:
            digest.update(b"\0?\0")
    return digest.hexdigest()


def decoded_bytes(source: Source, size: tuple[int, int] | None = None) -> int:
    """How many bytes the decoded pictures take; `size` (height, width), or that of the first picture."""
    height, width = size or source.image(0).shape[:2]
    return len(source) * height * width * 3


class CachedSource(Source):
    """A source whose pictures are already decoded; `crops` is (N, H, W, 3) uint8, mapped from `file`.

    Pickles as its path, so that worker processes share the pages. Without a file, `crops` are in memory.
    """

    def __init__(self, base: Source, file: Path | None, crops: ByteArray | None = None) -> None:
        self.base, self.file, self.path = base, file, base.path
        self.names, self.identities, self.labels, self.skipped = base.names, base.identities, base.labels, base.skipped
        if crops is not None:
            self.crops = crops

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "crops" or self.file is None}

    @cached_property
    def crops(self) -> ByteArray:  # pyright: ignore[reportRedeclaration]
        """All pictures; (N, H, W, 3)."""
        assert self.file is not None
        return np.asarray(np.load(self.file, mmap_mode="r", allow_pickle=False))

    def read(self, index: int) -> bytes:
        """The encoded bytes, from the source itself."""
        return self.base.read(index)

    def image(self, index: int) -> ByteArray:
        """A picture, copied out of the map; (H, W, 3)."""
        return np.array(self.crops[index])

    def take(self, indices: npt.ArrayLike, *, out: ByteArray | None = None) -> ByteArray:
        """A batch (B, H, W, 3) of pictures, into `out` when it is given."""
        return np.take(
            self.crops, np.asarray(indices, np.int64), axis=0, out=out, mode="clip" if out is not None else "raise"
        )


def cache_file(source: Source, folder: Path, size: tuple[int, int] | None = None) -> Path:
    """Where a source's cache lies in `folder`; the name holds the source's state."""
    shape = f"{size[0]}x{size[1]}" if size else "as-stored"
    return folder / f"decoded-{state_of(source)[:24]}-{shape}.npy"


def open_cache(source: Source, folder: Path, *, size: tuple[int, int] | None = None) -> CachedSource | None:
    """The cache of a source, if it was built since the source last changed."""
    file = cache_file(source, folder, size)
    try:
        crops = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged header is source text to NumPy: TokenError, SyntaxError, struct.error ...
        return None
    whole = crops.dtype == np.uint8 and crops.ndim == 4 and len(crops) == len(source)
    return CachedSource(source, file) if whole else None


def build_cache(
    source: Source, folder: Path, *, size: tuple[int, int] | None = None, budget: float = 8e9, workers: int = 1
) -> Iterator[int]:
    """Decode every picture of a source into `folder`; yields the pictures done. `open_cache` opens the result.

    Of several processes that build the same one does and the others wait. Arguments as those of `cached` in
    cache_policy.py.

    Raises:
        DataError: the cache would exceed the budget or the disk, a picture cannot be read or has another shape.
    """
    shape = size or shape_of(source)
    needed = len(source) * shape[0] * shape[1] * 3
    if needed > budget:
        raise DataError(f"{source.path}: decoded it takes {needed / 1e9:.2f} GB, the budget is {budget / 1e9:.2f} GB")
    file = cache_file(source, folder, size)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_file(file.with_suffix(".lock")):
            if file.exists() and open_cache(source, folder, size=size) is not None:
                yield len(source)
                return
            crops = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(source), *shape, 3))
            yield from decode_all(source, crops, shape, resized=size is not None, workers=workers)
            crops.flush()
            part.replace(file)
            about = {"source": str(source.path), "pictures": len(source), "size": list(shape)}
            write_atomically(file.with_suffix(".json"), json.dumps(about).encode())
    except OSError as error:
        raise DataError(f"{file}: cannot write the cache ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)


def decode_all(
    source: Source, crops: ByteArray, shape: tuple[int, int], *, resized: bool, workers: int
) -> Iterator[int]:
    """Fill `crops` with the source's pictures; yields the pictures done (decoding releases the interpreter lock).

    Shapes: `crops` (N, H, W, 3).
    """

    def decode(span: range) -> int:
        for i in span:
            crops[i] = fitted(source, i, shape, resized=resized)
        return len(span)

    done = 0
    pending: deque[Future[int]] = deque()
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for start in range(0, len(source), _CHUNK):
                pending.append(pool.submit(decode, range(start, min(start + _CHUNK, len(source)))))
                if len(pending) > 2 * workers:
                    done += pending.popleft().result()
                    yield done
            while pending:
                done += pending.popleft().result()
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def shape_of(source: Source) -> tuple[int, int]:
    """(height, width) of the first picture, which the others are to have."""
    height, width = source.image(0).shape[:2]
    return int(height), int(width)


def fitted(source: Source, index: int, shape: tuple[int, int], *, resized: bool = True) -> ByteArray:
    """A picture brought to `shape`; refused when its aspect ratio (or, unless `resized`, its size) is another.

    Shapes: (H, W, 3).

    Raises:
        DataError: the picture cannot be read, or does not fit.
    """
    image = source.image(index)
    height, width = image.shape[:2]
    if (height, width) == shape:
        return image
    if resized and height * shape[1] == width * shape[0]:
        return images.resize(image, shape)
    raise OtherShape(
        f"{source.path}: {source.names[index]} is {height}×{width}, the others are {shape[0]}×{shape[1]}; "
        "align them first: visavis prepare SRC DST"
    )
