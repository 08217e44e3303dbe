"""What every gallery does alike, wherever its rows are kept: enrolling, looking up, merging, erasing, deciding."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.assignment import one_to_one
from visavis.deploy.gallery.enroll_methods import EnrollMethods
from visavis.deploy.gallery.index import TemplateIndex
from visavis.deploy.gallery.locks import SharedLock
from visavis.deploy.gallery.records import Candidate, Identification, decide
from visavis.deploy.gallery.subject_methods import SubjectMethods
from visavis.deploy.gallery.table_access import LIVE
from visavis.errors import DataError


class GalleryBase(EnrollMethods, SubjectMethods):
    """Enroll, identify, forget; a gallery of a kind opens its store, and says how it searches and how it deletes."""

    _index: TemplateIndex
    _lock: SharedLock

    @abstractmethod
    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The `top` most similar subjects to each probe (P, D) or (D,), best first."""

    def identify(
        self,
        embeddings: npt.ArrayLike,
        *,
        threshold: float | None,
        fmr: float | None = None,
        fmr_interval: tuple[float, float] | None = None,
        top: int = 5,
        one_image: bool = False,
    ) -> list[Identification]:
        """Who each probe is, or unknown: the best candidate is a match when its similarity reaches `threshold`.

        Args:
            embeddings: (P, D) or (D,).
            threshold: cosine similarity; None ranks without deciding.
            fmr: the false match rate `threshold` was calibrated at; gives the FPIR stated.
            fmr_interval: where that rate truly lies; gives the FPIR's interval.
            top: candidates to return.
            one_image: the probes are the faces of one picture, so that nobody is two of them (see `one_to_one`).
        """
        if not one_image or np.ndim(embeddings) < 2:
            return decide(self.search(embeddings, top=top), self._searched(), threshold, fmr, fmr_interval)
        found = self.search(embeddings, top=max(self._most(top), len(np.asarray(embeddings))))
        answers = one_to_one(decide(found, self._searched(), threshold, fmr, fmr_interval))
        return [replace(answer, candidates=answer.candidates[:top]) for answer in answers]

    def _searched(self) -> int:
        """How many subjects a search looks at."""
        return len(self)

    @staticmethod
    def _most(top: int) -> int:
        """The number of candidates asked for.

        Raises:
            DataError: not a whole number from 1 on.
        """
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise DataError(f"the number of candidates is a whole number from 1 on, got {top!r}")
        return min(top, 1 << 31)

    def refresh(self) -> int:
        """Know what other processes wrote; returns the subjects that can be found."""
        self._load()
        return len(self._index)

    def _load(self) -> None:
        """Bring the index in memory up to the store."""
        with self._store.read() as db:
            generation = self._store.generation(db)
            if generation != self._index.generation:
                with self._lock.exclusive():
                    self._index.load(db, generation)
        now = time.time()
        if self._index.expiring(now):
            with self._lock.exclusive():
                self._index.drop_expired(now)

    @contextmanager
    def searchable(self) -> Iterator[TemplateIndex]:
        """The index in memory, brought up to date and held still."""
        self._load()
        with self._lock.shared():
            yield self._index

    def verify(self) -> None:
        """Read everything.

        Raises:
            StorageError: something is not as it was written, and which subject's it is.
        """
        self._store.verify()

    def __len__(self) -> int:
        with self._reading() as db:
            return db.execute(f"SELECT count(*) FROM subjects WHERE {LIVE}", (time.time(),)).fetchone()[0]

    def close(self) -> None:
        """Let go of the file or the server."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
