"""Gallery: enroll, identify, forget. SQLite holds everything; the search index in memory is derived from it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis._moved import former_arguments
from visavis.deploy.gallery import erasure
from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.encryption import Cipher, cipher_from_environment
from visavis.deploy.gallery.index import Approximation, TemplateIndex, unit_vectors
from visavis.deploy.gallery.locks import SharedLock
from visavis.deploy.gallery.migration import migrate
from visavis.deploy.gallery.model_identity import ModelIdentity, creator, open_binding
from visavis.deploy.gallery.records import Candidate, Forgotten
from visavis.deploy.gallery.retention import checked_days
from visavis.deploy.gallery.sqlite_file import Store
from visavis.deploy.gallery.table_access import Progress
from visavis.deploy.gallery.template_keeper import TemplateKeeper
from visavis.deploy.gallery.vectors import Precision
from visavis.errors import DataError

Vectors = npt.NDArray[np.float32]
_TRIES = 20


@final
class Gallery(GalleryBase):
    """The people a model can recognize, in one file.

    A write that returned is on the disk; a process killed in the middle of one leaves the file as it was before. One
    process writes at a time, any number read. Methods may be called from several threads. Expired subjects are never
    found; `sweep` erases them.

    Args:
        path: the file; made when absent and `create` is true.
        model: the model whose embeddings it holds; needed to make one, and checked against the file's when given.
        create: make the file when it is absent.
        read_only: open a file that cannot or shall not be written.
        precision: how the index holds vectors in memory: float32, float16 or int8. Lossy kinds find 4·top + 16
            candidates and rescore them with the stored float32 vectors.
        approximate: search large galleries by "cells" or by a "graph" (needs faiss): faster, and may miss a subject.
        retention_days: how long new subjects are kept by default; stored when the gallery is made.
        cipher: encryption at rest; taken from the environment when None.

    Raises:
        DataError: no such gallery, damaged, another model's, or encrypted with another key.
    """

    @former_arguments(seal="cipher")
    def __init__(
        self,
        path: str | os.PathLike[str],
        model: ModelIdentity | None = None,
        *,
        create: bool = False,
        read_only: bool = False,
        precision: Precision = "float32",
        approximate: Approximation | None = None,
        retention_days: float | None = None,
        cipher: Cipher | None = None,
    ) -> None:
        self.path = Path(path)
        if retention_days is not None:
            checked_days(retention_days)
        exists = self.path.exists() and self.path.stat().st_size > 0
        if create and not exists and model is None:
            raise DataError(f"{self.path}: a new gallery wants the model it is for; add --model MODEL")
        self._cipher = cipher_from_environment() if cipher is None else cipher
        new = creator(model, self._cipher, retention_days) if create and model is not None else None
        self._store = Store(self.path, create=new, read_only=read_only)
        try:
            self.model, self._rows = open_binding(self._store, model, self._cipher)
            self._store.use(self._rows)
            migrate(self._store, self._cipher)
            self._store.know()
        except BaseException:
            self._store.close()
            raise
        self._new_index = partial(TemplateIndex, self.model.dim, precision, self._rows, approximate=approximate)
        self._index = self._new_index()
        self._lock = SharedLock()
        self._keeper = None
        if not self._rows.encrypted:
            self._keeper = TemplateKeeper(self._store, dim=self.model.dim, lock=self._lock, rebuild=self._rebuild)
        if self.encrypted:
            self._name = self._order = "plain_name(id, CAST(name AS BLOB))"
            self._consent = "plain_consent(id, CAST(consent AS BLOB))"
            self._contains = f"instr(fold({self._name}), fold(?))"

    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The `top` most similar subjects to each probe (P, D) or (D,), best first, their similarities exact."""
        probes, top = unit_vectors(embeddings, self.model.dim), self._most(top)
        answers: list[tuple[Candidate, ...]] = []
        for _ in range(_TRIES):
            answers, gone = self._search(probes, top)
            if not gone:  # else somebody was erased between finding and naming: without them others would be best
                break
        return answers

    def _search(self, probes: Vectors, top: int) -> tuple[list[tuple[Candidate, ...]], int]:
        """Candidates of each probe, and how many of the subjects found do not exist any more."""
        with self.searchable() as index:
            lossy = index.vectors.precision != "float32"
            rescored = lossy or index.unverified
            similarity, row = index.vectors.search(
                probes, index.most_templates * max(1, 4 * top + 16 if lossy else top)
            )
            ids = index.ids[row] if row.size else row
        with self._store.read() as db:
            if rescored:
                exact = index.exact(db, {int(i) for i in ids.ravel()})
                similarity = np.array(
                    [
                        [(exact[i] @ p).max() if i in exact else -1 for i in r]
                        for r, p in zip(ids.tolist(), probes, strict=True)
                    ]
                )
            found = {int(i) for i in ids.ravel()}
            names = self._names(db, found)
        answers = []
        for values, subjects in zip(similarity.tolist(), ids.tolist(), strict=True):
            best: dict[int, float] = {}  # of the templates of a subject the most similar counts
            for value, i in sorted(zip(values, subjects, strict=True), key=lambda pair: -pair[0]):
                if i in names:
                    best.setdefault(i, float(value))
            answers.append(tuple(Candidate(i, names[i], v) for i, v in list(best.items())[:top]))
        return answers, len(found) - len(names)

    def _searched(self) -> int:
        return len(self._index)

    def _delete(
        self, db: Any, subjects: Sequence[int], samples: Sequence[int], faces: Sequence[int]
    ) -> erasure.SqliteTraces:
        return erasure.delete(self._store, db, subjects, samples=samples, unknown_faces=faces)

    def _finish(self, traces: erasure.SqliteTraces, progress: Progress | None, note: str = "") -> Forgotten:
        with self._lock.exclusive():
            rows = self._index.remove(traces.subjects)
        if traces.samples and not traces.subjects:
            self._load()  # the templates they were part of
        if self._keeper is not None:
            try:
                traces = erasure.with_templates(traces, self._keeper.erase(self._index))
            except (DataError, OSError) as error:  # the rows are deleted
                kept = f"the templates kept beside the gallery could not be overwritten: {error}"
                note = f"{note}; {kept}" if note else kept
        return erasure.finish(self._store, traces, index_rows=rows, progress=progress, note=note)

    def _load(self) -> None:
        """Bring the index in memory up to the file, starting from the templates kept beside it."""
        if self._keeper is None:
            super()._load()
            return
        with self._keeper.loading(self._index):
            super()._load()
        self._keeper.keep_up(self._index)

    def _rebuild(self) -> None:
        """Compute the index anew from the file itself."""
        with self._store.read() as db, self._lock.exclusive():
            fresh = self._new_index()
            fresh.load(db, self._store.generation(db))
            self._index = fresh

    @property
    def unverified(self) -> bool:
        """Whether checksums of the templates it was opened from are still being read; answers are checked meanwhile."""
        return self._index.unverified

    def verify(self) -> None:
        """Read everything, the templates kept beside it too; where these are damaged they are made anew."""
        super().verify()
        if self._keeper is not None and self._keeper.problems():
            self._keeper.renew()

    def close(self) -> None:
        """Let go of the file."""
        if self._keeper is not None:
            self._keeper.close(self._index)
        super().close()
