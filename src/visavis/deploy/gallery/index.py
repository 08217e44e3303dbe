"""The searchable form of a gallery: the templates of its subjects, derived from the store and rebuilt from it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.approximate import GraphVectors, InvertedVectors
from visavis.deploy.gallery.records import StorageError, damaged_sample
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.schema import columns
from visavis.deploy.gallery.vector_file import Contents
from visavis.deploy.gallery.vectors import Precision, Vectors, with_room
from visavis.errors import DataError, unknown_name

_BATCH = 8192
_SUBJECTS = 500  # asked for at a time
Approximation = Literal["cells", "graph"]
_KINDS = {"exact": Vectors, "cells": InvertedVectors, "graph": GraphVectors}
_STALE = "SELECT subject FROM forgotten WHERE changed > ? UNION SELECT id FROM subjects WHERE changed > ?"
_LIVE = "(expires IS NULL OR expires > ?)"
Vector = npt.NDArray[np.float32]


def unit_vectors(embeddings: npt.ArrayLike, dim: int) -> Vector:
    """Embeddings (n, D) or (D,) as float32 rows of length 1.

    Raises:
        DataError: another D, not finite, or of length 0.
    """
    vectors = np.atleast_2d(np.asarray(embeddings, np.float32))
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise DataError(f"this gallery holds embeddings of length {dim}, got shape {vectors.shape}")
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length < 1e-12).any():
        raise DataError("an embedding must be finite and not zero; the network's output is broken")
    return vectors / length


def fuse(vectors: Vector, weights: npt.NDArray[np.floating]) -> Vector:
    """The quality-weighted template of samples (n, D): t = Σ wᵢ·vᵢ / ‖Σ wᵢ·vᵢ‖, float32 (D,)."""
    total = np.asarray(weights, np.float64) @ vectors
    length = float(np.linalg.norm(total))
    if length < 1e-9:  # opposite vectors cancel; then the best sample stands for all
        return vectors[int(np.argmax(weights))].astype(np.float32)
    return (total / length).astype(np.float32)


class TemplateIndex:
    """Subject ids and their templates in memory; not thread-safe, its owner locks."""

    def __init__(self, dim: int, precision: Precision, rows: Rows, *, approximate: Approximation | None = None) -> None:
        kind = approximate or "exact"
        if kind not in _KINDS:
            raise DataError(unknown_name("index", kind, _KINDS))
        self.vectors: Vectors = _KINDS[kind](dim, precision=precision)
        self.generation = -1
        self._ids = np.empty(0, np.int64)
        self._expires = np.empty(0, np.float64)
        self._next_expiry = np.inf
        self._rows, self._dim = rows, dim
        self._subjects = 0
        self.most_templates = 1  # that a subject has or had
        self.unverified = False  # rows were taken from a file whose checksums are still being read
        self.tee: Callable[[list[int], Vector, list[float]], None] | None = None  # gets every row of a first load

    def __len__(self) -> int:
        """How many subjects can be found; one may have several rows."""
        return self._subjects

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Subject id of every row; (N,)."""
        return self._ids[: len(self.vectors)]

    def load(self, db: Any, generation: int) -> None:
        """Bring the index from the generation it was built at to the store's."""
        if self.generation < 0:
            count = db.execute("SELECT count(*) FROM subjects").fetchone()[0]
            self.vectors.reserve(with_room(count))
            where, values = "", ()
        else:
            gone = [row[0] for row in db.execute("SELECT subject FROM forgotten WHERE changed > ?", (self.generation,))]
            stale = db.execute(
                f"SELECT id FROM subjects WHERE changed > ? AND NOT {_LIVE}", (self.generation, time.time())
            )
            self.remove([*gone, *(row[0] for row in stale)])
            where, values = "AND changed > ?", (self.generation,)
        fresh = self.generation < 0
        for ids, templates, expires in self._templates(db, where, values):
            self._put(ids, templates, expires, fresh=fresh)
            if fresh and self.tee is not None:
                self.tee(ids, templates, expires)
        self.generation = generation

    def adopt(self, contents: Contents, rows: Vector) -> None:
        """Start from the rows (N, D) of a file instead of computing them; `load` brings them up to the store."""
        gone = np.flatnonzero(contents.ids == 0)
        self._ids, self._expires = contents.ids, contents.expires
        if type(self.vectors) is Vectors and self.vectors.precision == "float32":
            self.vectors.adopt(rows)
            self.unverified = True
        else:
            for start in range(0, len(rows), _BATCH):
                self.vectors.append(rows[start : start + _BATCH])
        for row in gone[::-1].tolist():
            last = len(self.vectors) - 1
            self.vectors.remove(row)
            self._ids[row], self._expires[row] = self._ids[last], self._expires[last]
        self.most_templates = contents.header.templates
        n = len(self.vectors)
        self._subjects = n if self.most_templates == 1 else len(np.unique(self._ids[:n]))
        self._next_expiry = float(self._expires[:n].min(initial=np.inf))
        self.generation = contents.header.generation

    def changed_since(
        self, db: Any, generation: int
    ) -> tuple[list[int], Iterable[tuple[list[int], Vector, list[float]]]]:
        """Subjects who changed or went after a generation, and the templates of those who are there."""
        stale = [row[0] for row in db.execute(_STALE, (generation, generation))]
        return stale, self._templates(db, "AND changed > ?", (generation,))

    def exact(self, db: Any, ids: Iterable[int]) -> dict[int, Vector]:
        """Templates (T, D) of subjects as the store has them, for rescoring what a lossy index found."""
        found: dict[int, Vector] = {}
        wanted = sorted(set(ids))
        for start in range(0, len(wanted), _SUBJECTS):
            part = wanted[start : start + _SUBJECTS]
            where = f"subject IN ({','.join('?' * len(part))}) ORDER BY subject, template, id"
            rows = db.execute(f"SELECT {columns('samples')}, 0 FROM samples WHERE {where}", part).fetchall()
            if rows:
                subjects, templates, _ = self._fuse_rows(rows)
                bounds = np.flatnonzero(np.diff(subjects, prepend=-1, append=-1))
                found |= {subjects[a]: templates[a:b] for a, b in itertools.pairwise(bounds.tolist())}
        return found

    def remove(self, subjects: Iterable[int]) -> int:
        """Erase the rows of subjects; returns how many rows there were."""
        wanted = np.fromiter(subjects, np.int64)
        rows = np.flatnonzero(self.ids == wanted[0] if len(wanted) == 1 else np.isin(self.ids, wanted))
        self._subjects -= len(np.unique(self.ids[rows]))
        for row in rows[::-1].tolist():  # from behind: the last, which takes the place, is never one to be removed
            last = len(self.vectors) - 1
            self.vectors.remove(row)
            self._ids[row], self._expires[row] = self._ids[last], self._expires[last]
        return len(rows)

    def expiring(self, now: float) -> bool:
        """Whether some subject's time has passed."""
        return now >= self._next_expiry

    def drop_expired(self, now: float) -> None:
        """Stop finding subjects whose time has passed."""
        n = len(self.vectors)
        self.remove(self.ids[self._expires[:n] <= now].copy())
        self._next_expiry = float(self._expires[: len(self.vectors)].min(initial=np.inf))

    def _templates(
        self, db: Any, where: str, values: tuple[int, ...]
    ) -> Iterable[tuple[list[int], Vector, list[float]]]:
        """Templates of live subjects in batches, by subject: ids, a row for each template, ends."""
        cursor = db.execute(
            f"SELECT {columns('samples', of='samples')}, coalesce(expires, 9e99) FROM subjects "
            f"JOIN samples ON samples.subject = subjects.id WHERE {_LIVE} {where} "
            "ORDER BY subjects.id, samples.template, samples.id",
            (time.time(), *values),
        )
        rest: list[tuple[Any, ...]] = []
        while batch := cursor.fetchmany(_BATCH):
            rows = rest + batch
            cut = len(rows)  # the last subject may continue in the next batch
            while cut and rows[cut - 1][1] == rows[-1][1]:
                cut -= 1
            if cut:
                yield self._fuse_rows(rows[:cut])
            rest = rows[cut:]
        if rest:
            yield self._fuse_rows(rest)

    def _fuse_rows(self, rows: list[tuple[Any, ...]]) -> tuple[list[int], Vector, list[float]]:
        """Rows of samples by subject and template, each with its checksum and its subject's end, as templates.

        A subject's first template is fused from all samples, the others from their own.
        """
        for row in rows:
            if row[-2] != self._rows.checksum("samples", row[:-2]):
                raise damaged_sample(row[0], row[1])
        vectors = self._decode([(row[0], row[3]) for row in rows])
        subject = np.array([row[1] for row in rows])
        template = np.array([row[2] for row in rows])
        starts = np.flatnonzero((np.diff(subject, prepend=-1) != 0) | (np.diff(template, prepend=-1) != 0))
        if len(starts) < len(rows):
            weights = np.array([row[4] for row in rows])
            ends = np.append(starts[1:], len(rows))
            first = np.diff(subject[starts], prepend=-1) != 0
            ends[first] = np.append(starts[first][1:], len(rows))
            vectors = np.stack([fuse(vectors[a:b], weights[a:b]) for a, b in zip(starts, ends, strict=True)])
        return subject[starts].tolist(), vectors, [rows[i][-1] for i in starts]

    def _decode(self, blobs: list[tuple[int, bytes]]) -> Vector:
        plain = [self._rows.decrypt(blob, "samples", "vector", number) for number, blob in blobs]
        if any(len(one) != 4 * self._dim for one in plain):
            raise StorageError(f"the gallery holds a vector that is not {self._dim} numbers long; the file is damaged")
        return np.frombuffer(b"".join(plain), np.float32).reshape(len(blobs), self._dim)

    def _put(self, ids: list[int], templates: Vector, expires: list[float], *, fresh: bool) -> None:
        """Add the templates of subjects, all of a subject's together; without `fresh` instead of those there are."""
        first = np.flatnonzero(np.diff(ids, prepend=-1))
        count = np.diff(np.append(first, len(ids)))
        if not fresh:
            keep = np.ones(len(ids), bool)
            known = np.isin(np.asarray(ids)[first], self.ids)
            for start, n in zip(first[known].tolist(), count[known].tolist(), strict=True):
                there = np.flatnonzero(self.ids == ids[start])
                if len(there) != n:
                    self.remove([ids[start]])
                    continue
                for i, row in enumerate(there.tolist(), start):
                    self.vectors.replace(row, templates[i])
                    self._expires[row] = expires[i]
                keep[start : start + n] = False
            ids, expires = [ids[i] for i in np.flatnonzero(keep)], [expires[i] for i in np.flatnonzero(keep)]
            self._subjects += int(keep[first].sum())
            templates = templates[keep]
        else:
            self._subjects += len(first)
        self.most_templates = max(self.most_templates, int(count.max(initial=1)))
        start, stop = len(self.vectors), len(self.vectors) + len(ids)
        self.vectors.append(templates)
        if stop > len(self._ids):
            room = max(stop, int(1.5 * start))
            self._ids, self._expires = np.resize(self._ids, room), np.resize(self._expires, room)
        self._ids[start:stop], self._expires[start:stop] = ids, expires
        self._next_expiry = min(self._next_expiry, min(expires, default=np.inf))
