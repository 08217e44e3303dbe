"""Generated faces, drawn once: kept among the decoded pictures by what makes them, the drawing code included."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.data.decoded_cache.policy import has_room, prune
from visavis.files import lock_file
from visavis.opencv import cv2
from visavis.synthetic import generate
from visavis.types import ByteArray

log = logging.getLogger(__name__)


def generated_faces(
    seed: int,
    identities: Sequence[int],
    images: int,
    *,
    size: int = 112,
    difficulty: float = 1.0,
    folder: Path | None = None,
    budget: float = 2e9,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ByteArray, npt.NDArray[np.int64]]:
    """`visavis.synthetic.generate`, read from `folder` when these faces were drawn before by this very code.

    Args:
        seed: of the world of people.
        identities: numbers of the people.
        images: of each of them.
        size: side in pixels.
        difficulty: of the conditions.
        folder: where decoded pictures are kept; None draws into memory.
        budget: bytes the faces may take at most to be kept; older ones go when together they exceed four budgets.
        workers: processes; one a usable core when None.
        progress: called with (pictures done, pictures in all).

    Returns:
        uint8 (N, size, size, 3) RGB, memory-mapped where it comes from the folder, and labels int64 (N,).
    """
    labels = np.repeat(np.arange(len(identities), dtype=np.int64), images)
    shape = (len(labels), size, size, 3)
    needed = int(np.prod(shape))

    def draw() -> ByteArray:
        drawn, _, _ = generate(
            seed, identities, images, size=size, difficulty=difficulty, workers=workers, progress=progress
        )
        return drawn

    if folder is None or needed > budget or not has_room(folder, needed):
        return draw(), labels
    key = repr((seed, tuple(identities), images, size, difficulty, drawing_digest()))
    file = folder / f"decoded-generated-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
    with lock_file(file.with_suffix(".lock")):
        if (known := _opened(file, shape)) is not None:
            log.info("generated faces from %s", file)
            file.touch()
            return known, labels
        prune(folder, keep=4 * budget - needed)
        drawn = draw()
        part = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as out:
                np.save(out, drawn)
            part.replace(file)
            log.info("generated faces kept in %s", file)
        except OSError as error:
            log.warning("%s: generated faces cannot be kept (%s)", file, error.strerror)
        finally:
            part.unlink(missing_ok=True)
    return drawn, labels


def drawing_digest() -> str:
    """A digest of the code that draws faces and of the libraries it draws with."""
    digest = hashlib.sha256(f"numpy {np.__version__}, opencv {cv2.__version__}".encode())
    for entry in sorted(resources.files("visavis.synthetic").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            digest.update(entry.name.encode() + b"\0" + entry.read_bytes())
    return digest.hexdigest()


def _opened(file: Path, shape: tuple[int, ...]) -> ByteArray | None:
    try:
        faces = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception:  # a damaged header is source text to NumPy: TokenError, SyntaxError, struct.error ...
        return None
    return faces if faces.dtype == np.uint8 and faces.shape == shape else None
