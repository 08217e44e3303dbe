"""One run over a photo library: look at what is new, apply what somebody said, group, and write the folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis.deploy.photo_library import corrections
from visavis.deploy.photo_library.folders import write_folders
from visavis.deploy.photo_library.grouping import Grouping, group_faces
from visavis.deploy.photo_library.scan import Scan, scan
from visavis.deploy.photo_library.store import LibraryStore
from visavis.deploy.recognizer import Recognizer


@dataclass(frozen=True)
class LibraryRun:
    """What a run did: what it looked at, what it kept before and after, corrections applied, files gone."""

    scan: Scan
    grouping: Grouping
    images: int
    faces: int
    corrected: int
    missing: tuple[str, ...]
    erased: int


def run_library(
    recognizer: Recognizer,
    root: Path,
    paths: Sequence[str],
    out: Path,
    *,
    threshold: float,
    min_size: int = 2,
    settings: dict[str, str] | None = None,
    corrections_file: str | os.PathLike[str] | None = None,
    prune: bool = False,
    aligned: bool = False,
    workers: int = 1,
    command: str = "visavis people PHOTOS --out PEOPLE",
    progress: Callable[[int, Scan], None] = lambda done, scan: None,
) -> LibraryRun:
    """Bring the library at `out` up to date with the pictures below `root`.

    Args:
        recognizer: finds and embeds.
        root: the folder of photographs, absolute.
        paths: the picture files below it, absolute.
        out: the library's folder.
        threshold: the model's calibrated similarity.
        min_size: faces from which a group is a person.
        settings: how faces are looked for, which must not change; see `LibraryStore`.
        corrections_file: to apply; the library's own `corrections.json`, where there is one, when None.
        prune: erase what came of files below `root` that are not there any more.
        aligned: the pictures are aligned crops.
        workers: processes that look at pictures.
        command: shown on the page.
        progress: see `scan`.

    Raises:
        DataError: see `LibraryStore`, `scan` and `apply_corrections`.
    """
    with LibraryStore(out, recognizer.identity, settings or {}) as store:
        own = out / corrections.FILE
        told = Path(corrections_file) if corrections_file is not None else own if own.is_file() else None
        corrected = 0 if told is None else corrections.apply_corrections(store, told)
        if told is not None and told.resolve() == own.resolve():
            own.replace(own.with_suffix(".applied.json"))
        looked = scan(store, recognizer, paths, aligned=aligned, workers=workers, progress=progress)
        missing = store.missing(root, paths)
        erased = store.forget(missing) if prune else 0
        grouping = group_faces(store, threshold, min_size=min_size)
        write_folders(store, out, command=command)
        return LibraryRun(looked, grouping, *store.counts(), corrected, () if prune else tuple(missing), erased)
