"""Which file a gallery's name stood for when it was opened, and whose log lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

from visavis.deploy.gallery.records import GalleryReplaced, StorageError
from visavis.files import write_atomically

_MARKER = "-inode"


class FileIdentity:
    """Remembers the device and inode of a file, so that a file put in its place is not taken for it.

    SQLite replays a log by its name alone. The inode of the file a log belongs to is therefore kept beside it, in
    GALLERY-inode; the device is not, which may get another number when the machine starts anew.

    Args:
        path: the file.
        name: what it was opened by: the same, or a link, which may come to lead elsewhere.
    """

    def __init__(self, path: Path, name: Path) -> None:
        self.path, self._name = path, name
        self._marker = path.with_name(path.name + _MARKER)
        self._opened: tuple[int, int] | None = None

    def refuse_foreign_log(self) -> None:
        """Before opening: the log beside must not be that of a file that was here before.

        Raises:
            StorageError: it is.
        """
        log = [name for end in ("-wal", "-shm") if (name := self.path.with_name(self.path.name + end)).exists()]
        owner, now = self._owner(), self._now()
        if log and owner is not None and (now is None or now[1] != owner):
            names = " and ".join(path.name for path in log)
            raise StorageError(
                f"{self.path}: {names} beside it belong to the file that was here before. Stop the processes that use "
                f"it; then delete {names}, or, if they were copied together with this file, {self._marker.name}"
            )

    def opened(self, *, read_only: bool) -> None:
        """After opening: remember the file, and that the log is its own."""
        self._opened = self._now()
        if self._opened is None:
            raise GalleryReplaced(self.path)
        if not read_only and self._owner() != self._opened[1]:
            write_atomically(self._marker, f"{self._opened[1]}\n".encode(), private=True)

    def replaced(self) -> bool:
        """Whether the name stands for another file by now, or for none."""
        return self._opened is not None and self._now() != self._opened

    def check(self) -> None:
        """Raise GalleryReplaced when it does."""
        if self.replaced():
            raise GalleryReplaced(self.path)

    def among(self, identities: tuple[tuple[int, int], ...]) -> bool:
        """Whether the file that was opened is one of these (device, inode)."""
        return self._opened in identities

    def _now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._name)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _owner(self) -> int | None:
        try:
            text = self._marker.read_text().strip()
        except OSError:
            return None
        return int(text) if text.isdecimal() else None
