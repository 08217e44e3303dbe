"""Forgetting: subjects are erased with everything of theirs, also when their time is over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from visavis.deploy.gallery.index import unit_vectors
from visavis.deploy.gallery.records import Forgotten, UnknownSubject
from visavis.deploy.gallery.sample_methods import SampleMethods
from visavis.deploy.gallery.table_access import Progress
from visavis.metrics.similarity import matches

_FACES = 4096  # unknown faces compared at a time


class ForgetMethods(SampleMethods):
    """The part of a gallery that erases."""

    def forget(self, *who: str | int, threshold: float | None = None, progress: Progress | None = None) -> Forgotten:
        """Erase subjects with everything of theirs, all or none, and look for what might be left.

        In a file: deleted cells are overwritten with zeros (secure_delete), the file is rewritten without free pages
        (VACUUM, once for all of `who`), the write-ahead log emptied, the index entries dropped, and every file searched
        for pieces of what was erased.

        The unknown faces kept are of the same people too: those whose similarity to any sample of theirs reaches
        `threshold` are erased with them. Without it they are not compared, and the receipt is not complete.

        Args:
            who: names or ids.
            threshold: the model's calibrated similarity.
            progress: told what is being done; a large file takes a while.

        Raises:
            DataError: nobody of that name; then nothing is erased.
        """
        with self._reading() as db:
            ids = list(dict.fromkeys(self._find(db, one, expired=True).id for one in who))
        return self._erase(ids, progress, threshold)

    def sweep(self, *, threshold: float | None = None, progress: Progress | None = None) -> Forgotten | None:
        """Erase the subjects whose retention period is over, as `forget`; None when there are none."""
        while True:
            with self._reading() as db:
                rows = db.execute("SELECT id FROM subjects WHERE expires <= ?", (time.time(),)).fetchall()
            if not rows:
                return None
            try:
                return self._erase([row[0] for row in rows], progress, threshold)
            except UnknownSubject:
                continue  # another process was faster with some of them

    def _erase(self, ids: Iterable[int], progress: Progress | None = None, threshold: float | None = None) -> Forgotten:
        subjects = sorted(set(ids))
        with self._store.write() as db:
            faces, note = self._faces_of(db, subjects, threshold)
            traces = self._delete(db, subjects, [], faces)
        return self._finish(traces, progress, note)

    def _faces_of(self, db: Any, subjects: Sequence[int], threshold: float | None) -> tuple[list[int], str]:
        """Unknown faces of subjects, and what is left to do where they cannot be told."""
        kept = db.execute("SELECT count(*) FROM unknown_faces").fetchone()[0]
        if not kept:
            return [], ""
        if threshold is None:
            return [], (
                f"{kept} unknown faces are kept and were not compared, as no threshold was given; to finish: visavis "
                f"gallery {self.path} unknowns --threshold S, then drop-unknowns"
            )
        theirs = np.concatenate([self._vectors(db, subject)[1] for subject in subjects])
        faces: list[int] = []
        cursor = db.execute("SELECT id, vector FROM unknown_faces")
        while rows := cursor.fetchmany(_FACES):
            plain = b"".join(self._rows.decrypt(row[1], "unknown_faces", "vector", row[0]) for row in rows)
            vectors = unit_vectors(np.frombuffer(plain, np.float32).reshape(len(rows), -1), self.model.dim)
            alike = matches((vectors @ theirs.T).max(1), threshold)
            faces += [row[0] for row, same in zip(rows, alike.tolist(), strict=True) if same]
        return faces, ""
