"""The file of a photo library: which pictures were looked at, the faces found in them, and whose they are."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.errors import DataError
from visavis.files import exclusive, open_private

FILE, LOCK = "library.db", "library.lock"
_APPLICATION_ID, _FORMAT = 0x76697370, 1
_SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pictures (digest BLOB PRIMARY KEY, faces INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE files (path TEXT PRIMARY KEY, digest BLOB NOT NULL, size INTEGER NOT NULL, changed INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX files_of_picture ON files (digest);
CREATE TABLE people (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, box TEXT NOT NULL, quality REAL NOT NULL,
    reasons TEXT NOT NULL, embedding BLOB NOT NULL, crop BLOB NOT NULL,
    person INTEGER, told INTEGER NOT NULL DEFAULT 0, left_out INTEGER NOT NULL DEFAULT 0);
CREATE INDEX faces_of_picture ON faces (digest);
CREATE INDEX faces_of_person ON faces (person);
"""


@dataclass(frozen=True)
class FoundFace:
    """A face of a picture as it is kept: box x1, y1, x2, y2 in pixels, float32 embedding and JPEG crop as bytes."""

    box: tuple[float, ...]
    quality: float
    reasons: tuple[str, ...]
    embedding: bytes
    crop: bytes


@dataclass(frozen=True)
class LookedAt:
    """What looking at a picture file gave: the digest of what was read and its faces, or why it could not be read."""

    path: str
    digest: bytes = b""
    size: int = 0
    changed: int = 0
    faces: tuple[FoundFace, ...] = ()
    unread: str = ""


@dataclass(frozen=True)
class KeptFace:
    """A face, whose it is (None: nobody's yet), whether somebody said so, and a picture file it is on."""

    id: int
    person: int | None
    told: bool
    quality: float
    reasons: str
    path: str


@dataclass(frozen=True, eq=False)
class GroupedFaces:
    """Numbers, people (−1: nobody's yet), whether somebody said so (N,), and unit rows (N, D)."""

    numbers: npt.NDArray[np.int64]
    people: npt.NDArray[np.int64]
    told: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.float32]


@final
class LibraryStore:
    """The open file. One process at a time; a commit is on the disk, and a killed process leaves the last one."""

    def __init__(self, folder: Path, model: ModelIdentity, settings: dict[str, str]) -> None:
        """Open the library of a folder, made where there is none.

        Args:
            folder: where the file is.
            model: whose embeddings are kept.
            settings: how faces are looked for; another run must say the same.

        Raises:
            DataError: made with another model or other settings, by a newer version, damaged, or in use.
        """
        self.path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = open_private(folder / LOCK)
        self._held = exclusive(self._lock, wait=False)
        try:
            self._held.__enter__()
        except BlockingIOError as error:
            os.close(self._lock)
            raise DataError(f"{folder}: another visavis people is at work there; wait for it") from error
        try:
            self.dim = model.dim
            self.db = self._open({"model": model.name, "model_digest": model.digest, **settings})
        except BaseException:
            self._release()
            raise

    def _open(self, settings: dict[str, str]) -> sqlite3.Connection:
        os.close(open_private(self.path))
        db = sqlite3.connect(self.path, isolation_level=None)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not version and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                written = "\n".join(
                    f"INSERT INTO settings VALUES ({_quoted(key)}, {_quoted(value)});"
                    for key, value in settings.items()
                )
                db.executescript(
                    f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {_FORMAT};"
                    f"{_SCHEMA}{written} COMMIT;"
                )
            elif db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
                raise DataError(f"{self.path}: an SQLite file, but no photo library of visavis; choose another --out")
            elif version > _FORMAT:
                raise DataError(
                    f"{self.path}: of format {version}, written by a newer visavis; this one reads {_FORMAT}"
                )
            db.execute("PRAGMA secure_delete = ON")
            self._check(db, settings)
        except sqlite3.DatabaseError as error:
            db.close()
            raise DataError(f"{self.path}: damaged ({error}); restore it, or choose another --out") from error
        except BaseException:
            db.close()
            raise
        return db

    def _check(self, db: sqlite3.Connection, settings: dict[str, str]) -> None:
        theirs = dict(db.execute("SELECT key, value FROM settings"))
        for key, ours in settings.items():
            if key != "model" and theirs.get(key) != ours:
                was, now = (theirs["model"], settings["model"]) if key == "model_digest" else (theirs.get(key), ours)
                what = "model" if key == "model_digest" else f"--{key.replace('_', '-')}"
                raise DataError(
                    f"{self.path.parent}: made with {what} {was!r}, got {now!r}; say the same, or choose another --out"
                )

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()
        self._release()

    def _release(self) -> None:
        self._held.__exit__(None, None, None)
        os.close(self._lock)

    def __enter__(self) -> LibraryStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Keep all of what the block changes, or nothing.

        Raises:
            DataError: the disk is full, or the file cannot be written.
        """
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise DataError(f"{self.path}: cannot write ({error}); run again to go on") from error

    def unchanged(self, path: str, size: int, changed: int) -> bool:
        """Whether a file is known by its name, size and time of change (ns), so that it need not be read."""
        row = self.db.execute("SELECT size, changed FROM files WHERE path = ?", (path,)).fetchone()
        return row == (size, changed)

    def knows(self, digest: bytes) -> bool:
        """Whether a picture was looked at, under whatever name."""
        return self.db.execute("SELECT 1 FROM pictures WHERE digest = ?", (digest,)).fetchone() is not None

    def keep(self, images: Iterable[LookedAt]) -> None:
        """Keep what was found; a picture known already only gets another name."""
        with self.transaction() as db:
            for image in images:
                if not self.knows(image.digest):
                    db.execute("INSERT INTO pictures VALUES (?, ?)", (image.digest, len(image.faces)))
                    db.executemany(
                        "INSERT INTO faces (digest, box, quality, reasons, embedding, crop) VALUES (?, ?, ?, ?, ?, ?)",
                        [
                            (image.digest, " ".join(f"{v:.1f}" for v in face.box), face.quality,
                             "; ".join(face.reasons), face.embedding, face.crop)
                            for face in image.faces
                        ],
                    )  # fmt: skip
                db.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                    (image.path, image.digest, image.size, image.changed),
                )

    def counts(self) -> tuple[int, int]:
        """How many pictures and faces are kept."""
        images = self.db.execute("SELECT count(*) FROM pictures").fetchone()[0]
        return images, self.db.execute("SELECT count(*) FROM faces").fetchone()[0]

    def vectors(self) -> GroupedFaces:
        """The faces to be grouped, by number: neither left out nor poor, and whatever somebody said is a person's."""
        where = "WHERE NOT left_out AND (told OR reasons = '')"
        count = self.db.execute(f"SELECT count(*) FROM faces {where}").fetchone()[0]
        found = GroupedFaces(
            np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, bool),
            np.empty((count, self.dim), np.float32),
        )  # fmt: skip
        query = f"SELECT id, person, told, embedding FROM faces {where} ORDER BY id"
        for i, (number, person, said, embedding) in enumerate(self.db.execute(query)):
            if len(embedding) != 4 * self.dim:
                raise DataError(f"{self.path}: face {number} is damaged; restore the file, or choose another --out")
            found.numbers[i], found.people[i], found.told[i] = number, -1 if person is None else person, said
            found.rows[i] = np.frombuffer(embedding, "<f4")
        return found

    def poor(self) -> int:
        """How many faces are not grouped because something about them is poor."""
        query = "SELECT count(*) FROM faces WHERE NOT left_out AND NOT told AND reasons != ''"
        return self.db.execute(query).fetchone()[0]

    def faces(self) -> Iterator[KeptFace]:
        """The faces not left out, by person and number; of several files of one picture the first by name."""
        query = (
            "SELECT f.id, f.person, f.told, f.quality, f.reasons, "
            "(SELECT min(path) FROM files WHERE files.digest = f.digest) "
            "FROM faces f WHERE NOT f.left_out ORDER BY f.person IS NULL, f.person, f.id"
        )
        for number, person, told, quality, reasons, path in self.db.execute(query):
            yield KeptFace(number, person, bool(told), quality, reasons, path or "")

    def crop(self, face: int) -> bytes:
        """The JPEG crop of a face."""
        return self.db.execute("SELECT crop FROM faces WHERE id = ?", (face,)).fetchone()[0]

    def names(self) -> dict[int, str]:
        """The name of each person: as told, or `person-N`."""
        rows = self.db.execute("SELECT id, name FROM people ORDER BY id")
        return {number: name or f"person-{number}" for number, name in rows}

    def new_person(self, name: str | None = None) -> int:
        """The number of a person made now; inside a transaction."""
        return int(self.db.execute("INSERT INTO people (name) VALUES (?)", (name,)).lastrowid or 0)

    def missing(self, root: Path, there: Sequence[str]) -> list[str]:
        """Files kept below a folder that are not among those there now."""
        below = f"{root}{os.sep}"
        known = self.db.execute("SELECT path FROM files WHERE substr(path, 1, ?) = ?", (len(below), below))
        return sorted({path for (path,) in known} - set(there))

    def forget(self, paths: Sequence[str]) -> int:
        """Erase files, and the faces of pictures that no file is left of; returns how many faces."""
        with self.transaction() as db:
            db.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])
            db.execute("DELETE FROM pictures WHERE digest NOT IN (SELECT digest FROM files)")
            return db.execute("DELETE FROM faces WHERE digest NOT IN (SELECT digest FROM pictures)").rowcount


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
