"""A gallery written to a file of plain arrays, and read back: together they change nothing."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.export_file import FORMAT, KINDS, ExportFile, write_export
from visavis.deploy.gallery.index import unit_vectors
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.names import clean_name, clean_note, name_key
from visavis.deploy.gallery.records import damaged_subject
from visavis.deploy.gallery.retention import earliest, joined_notes
from visavis.deploy.gallery.schema import columns
from visavis.errors import DataError

_BATCH = 500  # subjects of one transaction


@dataclass(frozen=True)
class Import:
    """What importing did: subjects made, samples and unknown faces added, both there already, subjects now expired."""

    subjects: int
    samples: int
    already: int
    unknown_faces: int
    expired: int


def export_gallery(gallery: GalleryBase, path: str | os.PathLike[str]) -> int:
    """Write everything, decrypted, readable by its owner alone: subjects, samples, crops, sources, unknown faces.

    Memory does not grow with the gallery. Returns how many subjects.

    Raises:
        DataError: a row is damaged; then nothing is written.
    """
    rows = gallery.rows
    retention = gallery.retention_days
    about = {"format": FORMAT, "model": vars(gallery.model), "retention_days": retention}
    with gallery.store.read() as db:
        for table in KINDS:
            for number in rows.damaged(db, table):
                raise DataError(f"{gallery.path}: row {number} of {table} is damaged; type: visavis gallery ... check")
        counts = {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in KINDS}

        def values(table: str, column: str) -> Iterator[Any]:
            order = "subject, id" if table == "samples" else "id"
            for number, stored in db.execute(f"SELECT id, {column} FROM {table} ORDER BY {order}"):
                yield _plain(rows, table, column, number, stored)

        write_export(path, about, counts, values, dim=gallery.model.dim)
    return counts["subjects"]


def _plain(rows: Any, table: str, column: str, number: int, stored: Any) -> Any:
    kind = KINDS[table][column]
    if column in ("picture", "source"):
        return rows.plain_digest(stored)
    if kind == "text":
        return rows.text(stored, table, column, number)
    return rows.decrypt(stored, table, column, number) if kind in ("bytes", "vector") and stored is not None else stored


def model_of_export(path: str | os.PathLike[str]) -> tuple[ModelIdentity, float | None]:
    """The model of an exported gallery, and its default retention in days."""
    file = ExportFile(path)
    file.close()
    model = file.about["model"]
    return ModelIdentity(model["name"], int(model["dim"]), model["digest"]), file.about.get("retention_days")


def import_gallery(gallery: GalleryBase, path: str | os.PathLike[str]) -> Import:
    """Add an export of a gallery of the same model; a sample that is there already is not added again.

    A subject who is there keeps the earlier end and gains the note. An empty gallery gets the same numbers. Killed on
    the way, it is done when it is run again. Memory does not grow with the file.

    Raises:
        DataError: not an export, damaged, or of another model; the transactions before the damage are kept.
    """
    file = ExportFile(path)
    try:
        model = file.about["model"]
        if model["digest"] != gallery.model.digest:
            raise DataError(
                f"{file.path}: exported from the model {model['name']!r}, the gallery is for {gallery.model.name!r}"
            )
        gallery.sweep()
        done = _Importer(gallery)
        samples = itertools.groupby(file.rows("samples", dim=gallery.model.dim), key=lambda row: row["subject"])
        following = _Following(samples)
        subjects = file.rows("subjects", dim=gallery.model.dim)
        while batch := list(itertools.islice(subjects, _BATCH)):
            done.subjects(batch, following)
        faces = file.rows("unknown_faces", dim=gallery.model.dim)
        while batch := list(itertools.islice(faces, _BATCH)):
            done.unknown_faces(batch)
        return Import(**done.counts)
    finally:
        file.close()


class _Following:
    """The groups of a sequence in rising order, asked for in rising order."""

    def __init__(self, groups: Iterator[tuple[int, Iterator[dict[str, Any]]]]) -> None:
        self._groups = groups
        self._next = next(groups, None)

    def of(self, subject: int) -> list[dict[str, Any]]:
        while self._next is not None and self._next[0] < subject:
            self._next = next(self._groups, None)
        if self._next is None or self._next[0] != subject:
            return []
        found = list(self._next[1])
        self._next = next(self._groups, None)
        return found


class _Importer:
    def __init__(self, gallery: GalleryBase) -> None:
        self._gallery = gallery
        self._rows = gallery.rows
        self.counts = {"subjects": 0, "samples": 0, "already": 0, "unknown_faces": 0, "expired": 0}
        with gallery.store.read() as db:
            self._fresh = not db.execute("SELECT 1 FROM subjects UNION ALL SELECT 1 FROM forgotten LIMIT 1").fetchone()
            self._faces = {
                _short(self._rows.decrypt(row[1], "unknown_faces", "vector", row[0]))
                for row in db.execute("SELECT id, vector FROM unknown_faces")
            }
        self._had_faces = bool(self._faces)

    def subjects(self, batch: list[dict[str, Any]], following: _Following) -> None:
        """Add subjects with their samples, in one transaction."""
        now = time.time()
        with self._gallery.store.write() as db:
            generation = self._gallery.store.generation(db) + 1
            touched = []
            for values in batch:
                samples = following.of(values["id"])
                if values["expires"] is not None and values["expires"] <= now:
                    self.counts["expired"] += 1
                elif (number := self._subject(db, values, samples, generation)) is not None:
                    touched.append(number)
            if touched:
                self._gallery.store.next_generation(db)
                self._gallery.renew_templates(db, touched)

    def _subject(self, db: Any, values: dict[str, Any], samples: list[dict[str, Any]], generation: int) -> int | None:
        """Make a subject, or add to the one who is there; None when nothing is new."""
        rows, name, note = self._rows, clean_name(values["name"]), clean_note(values["consent"])
        label = rows.label(name_key(name))
        # Two names that differ by characters nobody sees stay two people, as the migration left them.
        twin = rows.label(f"{name_key(name)}\0{values['id']}")
        query = f"SELECT {columns('subjects')} FROM subjects WHERE key = ?"
        found = db.execute(query, (twin,)).fetchone() or db.execute(query, (label,)).fetchone()
        if found is None or self._fresh:
            number = values["id"] if self._fresh else rows.next_id(db, "subjects")
            texts = [rows.encrypt_text(t, "subjects", c, number) for c, t in (("name", name), ("consent", note))]
            label = label if found is None else twin
            rows.insert(db, "subjects", [(number, label, *texts, values["created"], values["expires"], generation)])
            self.counts["subjects"] += 1
            self._samples(db, number, samples)
            return number
        number, stored, end = found[0], found[3], found[5]
        if found[-1] != rows.checksum("subjects", found[:-1]):
            raise damaged_subject(number)
        there = {
            rows.decrypt(vector, "samples", "vector", sample)
            for sample, vector in db.execute("SELECT id, vector FROM samples WHERE subject = ?", (number,))
        }
        new = [row for row in samples if row["vector"].tobytes() not in there]
        self.counts["already"] += len(samples) - len(new)
        before = rows.text(stored, "subjects", "consent", number) or ""
        joined, sooner = joined_notes([before, note]), earliest([end, values["expires"]])
        if not new and (joined, sooner) == (before, end):
            return None
        consent = stored if joined == before else rows.encrypt_text(joined, "subjects", "consent", number)
        row = (*found[:3], consent, found[4], sooner, generation)
        query = "UPDATE subjects SET consent = ?, expires = ?, changed = ?, checksum = ? WHERE id = ?"
        db.execute(query, (consent, *row[5:], rows.checksum("subjects", row), number))
        self._samples(db, number, new)
        return number

    def _samples(self, db: Any, subject: int, samples: list[dict[str, Any]]) -> None:
        if not samples:
            return
        rows = self._rows
        first = None if self._fresh else rows.next_id(db, "samples")
        last = db.execute("SELECT max(template) FROM samples WHERE subject = ?", (subject,)).fetchone()[0] or 0
        fresh = []
        for i, row in enumerate(samples):
            number = row["id"] if first is None else first + i
            described = self._described(row, "samples", number, row["weight"])
            template = row["template"] + last if row["template"] else 0  # apart from the templates there are
            fresh.append(rows.with_crop((number, subject, template, *described), row["crop"], "samples"))
        rows.insert(db, "samples", fresh)
        self.counts["samples"] += len(fresh)

    def unknown_faces(self, batch: list[dict[str, Any]]) -> None:
        """Add unknown faces, in one transaction."""
        rows, table = self._rows, "unknown_faces"
        with self._gallery.store.write() as db:
            first = None
            fresh = []
            for row in batch:
                mark = _short(row["vector"].tobytes())
                if mark in self._faces:
                    self.counts["already"] += 1
                    continue
                self._faces.add(mark)
                first = first or rows.next_id(db, table)
                number = row["id"] if self._fresh and not self._had_faces else first + len(fresh)
                values = (number, *self._described(row, table, number))
                fresh.append(rows.with_crop(values, row["crop"], table))
            if fresh:
                rows.insert(db, table, fresh)
            self.counts["unknown_faces"] += len(fresh)

    def _described(self, row: dict[str, Any], table: str, number: int, *weight: float) -> tuple[Any, ...]:
        """Vector, weight if the table has one, quality, digests, source and time of a row, as the store holds them."""
        rows = self._rows
        vector = row["vector"]
        if not np.isfinite(vector).all() or (weight and abs(float(np.linalg.norm(vector)) - 1) > 1e-3):
            vector = unit_vectors(vector, self._gallery.model.dim)[0]
        return (
            rows.encrypt(vector.tobytes(), table, "vector", number), *weight, row["quality"],
            rows.digest(row["picture"]), rows.digest(row["source"]),
            rows.encrypt_text(row["source_name"], table, "source_name", number),
            time.time() if row["created"] is None else row["created"],
        )  # fmt: skip


def _short(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
