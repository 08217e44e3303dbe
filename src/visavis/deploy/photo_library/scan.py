"""Looking at the pictures of a library: known ones are skipped, what is found is kept a batch at a time."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visavis.deploy.face import Face
from visavis.deploy.photo_library.store import FoundFace, LibraryStore, LookedAt
from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError
from visavis.processes import process_pool
from visavis.vision.images import encode

_BATCH, _SECONDS = 64, 5.0  # pictures, or seconds, of work that a killed run does again at most
_HELD = 200_000_000  # bytes of a picture file, which are read at once


@dataclass
class Scan:
    """What a look through the pictures came to; `unread` pairs a path with the reason."""

    new: int = 0
    known: int = 0
    faces: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)

    @property
    def done(self) -> int:
        """How many files were gone through."""
        return self.new + self.known + len(self.unread)


def scan(
    store: LibraryStore,
    recognizer: Recognizer,
    paths: Sequence[str],
    *,
    aligned: bool = False,
    workers: int = 1,
    progress: Callable[[int, Scan], None] = lambda done, scan: None,
) -> Scan:
    """Look at the picture files that are not known and keep their faces.

    A file is known by its path, size and time of change, or by its digest. One that cannot be read is tried again by
    the next run. Memory does not grow with the pictures: a few are in flight in each process, 64 wait to be kept.

    Args:
        store: keeps them.
        recognizer: finds and embeds.
        paths: absolute.
        aligned: they are aligned crops.
        workers: processes; more than one wants a recognizer made by `Recognizer.load`.
        progress: told how many of the paths are done, and what was found.

    Raises:
        DataError: the library cannot be written, or a process died.
    """
    found, waiting = Scan(), _Waiting(store)

    def fresh() -> Iterator[str]:
        for path in paths:
            if _is_known(store, path, waiting):
                found.known += 1
                progress(found.done, found)
            else:
                yield path

    try:
        with process_pool(_Looking, recognizer, aligned, workers=workers, advice="run again to go on") as pool:
            for looked in pool.map(fresh(), chunk=4 if workers > 1 else 1):
                if looked.unread:
                    found.unread.append((looked.path, looked.unread))
                else:
                    waiting.add(looked)
                    found.new, found.faces = found.new + 1, found.faces + len(looked.faces)
                progress(found.done, found)
    finally:
        waiting.keep()
    store.forget([])  # pictures whose only file holds another one now
    return found


class _Waiting:
    """What was found and is not kept yet."""

    def __init__(self, store: LibraryStore) -> None:
        self.store, self.images, self.kept_at = store, list[LookedAt](), time.monotonic()

    def add(self, image: LookedAt) -> None:
        self.images.append(image)
        if len(self.images) >= _BATCH or time.monotonic() - self.kept_at > _SECONDS:
            self.keep()

    def keep(self) -> None:
        if self.images:
            self.store.keep(self.images)
            self.images.clear()
        self.kept_at = time.monotonic()


def _is_known(store: LibraryStore, path: str, waiting: _Waiting) -> bool:
    """Whether a file need not be looked at; one of another name or time but the same content is noted."""
    try:
        status = os.stat(path)
        if store.unchanged(path, status.st_size, status.st_mtime_ns):
            return True
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return False  # whoever looks at it says why
    if not store.knows(digest):
        return False
    waiting.add(LookedAt(path, digest, status.st_size, status.st_mtime_ns))
    return True


class _Looking:
    """One process's recognizer."""

    def __init__(self, recognizer: Recognizer, aligned: bool) -> None:
        self.recognizer, self.aligned = recognizer, aligned

    def __call__(self, path: str) -> LookedAt:
        try:
            status = os.stat(path)
            if status.st_size > _HELD:
                return LookedAt(path, unread=f"a picture file of more than {_HELD:,} bytes")
            data = Path(path).read_bytes()
        except OSError as error:
            return LookedAt(path, unread=f"cannot read the picture ({error.strerror})")
        try:
            faces = self.recognizer.get(data, aligned=self.aligned, name=path)
        except DataError as error:
            return LookedAt(path, unread=str(error).removeprefix(f"{path}: "))
        digest = hashlib.sha256(data).digest()
        return LookedAt(path, digest, status.st_size, status.st_mtime_ns, tuple(map(_kept, faces)))


def _kept(face: Face) -> FoundFace:
    box = tuple(float(v) for v in face.box)
    crop = encode(face.crop, ".jpg", quality=95)
    return FoundFace(box, face.quality.score, face.quality.reasons, face.embedding.astype("<f4").tobytes(), crop)
