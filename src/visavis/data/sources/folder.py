"""Pictures in folders: one folder per identity, or pictures side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.data.sources.base import Source
from visavis.data.sources.system_files import left_by_a_system
from visavis.data.text import natural_key
from visavis.errors import DataError
from visavis.vision.images import is_image_path

_MAX_DEPTH = 8


class FileSource(Source):
    """Pictures that are files below `path`; `owners[i]` is the identity of `names[i]`.

    Without owners a picture belongs to its first folder: sub-folders (clips, as in YouTube Faces) belong to the
    identity above them. Identities are in the order of `natural_key`, the same on every file system.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        *,
        owners: Sequence[str] | None = None,
        skipped: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.path, self.names, self.skipped = path, tuple(names), tuple(skipped)
        owners = [name.split("/", 1)[0] for name in names] if owners is None else owners
        self.identities = tuple(sorted(set(owners), key=natural_key))
        row = {identity: label for label, identity in enumerate(self.identities)}
        self.labels = np.array([row[owner] for owner in owners], np.int64)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            return (self.path / self.names[index]).read_bytes()
        except OSError as error:
            raise DataError(f"{self.path / self.names[index]}: cannot read the picture ({error.strerror})") from error


def open_folder(path: Path) -> Source:
    """Open a folder per identity, or a folder that holds `images/` with one.

    Raises:
        DataError: no identity folder with a picture in it.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder with one folder of pictures per identity, got no folder")
    root = path / "images" if (path / "images").is_dir() and not _has_images(path / "images") else path
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    for entry in _listing(root):
        if left := left_by_a_system(entry.name):
            skipped.append((entry.name, left))
        elif entry.is_dir():
            before = len(names)
            _walk(Path(entry.path), entry.name, names, skipped, ())
            if len(names) == before:
                skipped.append((entry.name, "a folder without pictures"))
        else:
            reason = "a picture outside any identity's folder" if is_image_path(entry.name) else "not a picture"
            skipped.append((entry.name, reason))
    if not names:
        loose = sum(reason.startswith("a picture") for _, reason in skipped)
        found = f"{loose} pictures with no folder around them" if loose else f"{len(skipped)} other entries"
        raise DataError(f"{root}: expected one folder of pictures per identity ({'IDENTITY/picture.jpg'}), got {found}")
    return FileSource(root, names, skipped=skipped)


def find_images(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """All pictures below a folder, by their names relative to it, and what was left out, with the reason.

    Raises:
        DataError: the folder cannot be listed.
    """
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    _walk(folder, "", names, skipped, ())
    return names, skipped


def open_flat(path: Path) -> Source:
    """Open pictures that lie side by side in one folder; each is its own identity.

    Raises:
        DataError: no picture in the folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder of pictures, got no folder")
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    for entry in _listing(path):
        if left := left_by_a_system(entry.name):
            skipped.append((entry.name, left))
        elif entry.is_file() and is_image_path(entry.name):
            names.append(entry.name)
        else:
            skipped.append((entry.name, "a folder" if entry.is_dir() else "not a picture"))
    if not names:
        raise DataError(f"{path}: expected pictures, got {len(skipped)} other entries")
    return FileSource(path, names, skipped=skipped)


def holds_only_images(folder: Path) -> bool:
    """Whether pictures lie side by side in a folder, and no folder beside them."""
    entries = [entry for entry in _listing(folder) if not left_by_a_system(entry.name)]
    return any(is_image_path(entry.name) for entry in entries) and not any(entry.is_dir() for entry in entries)


def _has_images(folder: Path) -> bool:
    """Whether pictures lie directly in a folder: then one called `images` is itself an identity's."""
    with os.scandir(folder) as entries:
        return any(
            entry.is_file() and is_image_path(entry.name) and not left_by_a_system(entry.name) for entry in entries
        )


def _listing(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: natural_key(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot list the folder ({error.strerror})") from error


def _walk(
    folder: Path, prefix: str, names: list[str], skipped: list[tuple[str, str]], above: tuple[tuple[int, int], ...]
) -> None:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above or len(above) >= _MAX_DEPTH:
        skipped.append((prefix, "a link back to a folder above" if here in above else "nested too deep"))
        return
    for entry in _listing(folder):
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if left := left_by_a_system(entry.name):
            skipped.append((name, left))
        elif entry.is_dir():
            _walk(Path(entry.path), name, names, skipped, (*above, here))
        elif is_image_path(entry.name) and entry.is_file():
            names.append(name)
        else:
            skipped.append((name, "not a picture" if entry.is_file() else "neither file nor folder (a broken link?)"))
