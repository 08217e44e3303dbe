"""Keeps the file of templates beside a gallery: read when the gallery is opened, checked after, brought up to date."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import numpy as np

from visavis.deploy.gallery.index import TemplateIndex
from visavis.deploy.gallery.locks import SharedLock
from visavis.deploy.gallery.records import StorageError
from visavis.deploy.gallery.sqlite_file import Store
from visavis.deploy.gallery.vector_file import BLOCK, Contents, VectorFile, Writer
from visavis.errors import DataError

SMALLEST = 20_000  # subjects; fewer are read from the gallery itself in a fraction of a second
_USED = 0.7  # of the rows; a file with more empty ones is written anew
_SHARE = 0.02  # of the subjects changed, and the file is brought up to date
_LOOK = 200  # changes of the gallery between two looks whether it must be
_SETTING = "vectors"
_STEP = 16 * BLOCK
log = logging.getLogger(__name__)


@final
class TemplateKeeper:
    """Of one open gallery; the file is derived and never needed, so that what goes wrong with it only costs time."""

    def __init__(self, store: Store, *, dim: int, lock: SharedLock, rebuild: Callable[[], None]) -> None:
        self._store, self._lock, self._rebuild = store, lock, rebuild
        self._file = VectorFile(store.real, gallery=store.settings()["uuid"], dim=dim)
        self._first = threading.Lock()
        self._look_at = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def loading(self, index: TemplateIndex) -> Iterator[None]:
        """Around a load of the index: the first one starts from the file, or writes it."""
        if index.generation >= 0:
            yield
            return
        with self._first:
            writer = self._begin(index) if index.generation < 0 else None
            try:
                yield
                if writer is not None:
                    done, writer = writer, None
                    self._name(done.finish(index.generation))
            except OSError as error:
                log.warning("%s: its templates cannot be kept beside it: %s", self._store.path, error)
            finally:
                index.tee = None
                if writer is not None:
                    writer.give_up()

    def keep_up(self, index: TemplateIndex, *, closing: bool = False) -> None:
        """Bring the file up to the gallery when enough has changed."""
        if self._store.read_only or (index.generation < self._look_at and not closing):
            return
        self._look_at = index.generation + _LOOK
        token = self._token()
        contents = self._file.read(token) if token else None
        if contents is None or contents.header.generation >= index.generation:
            return
        try:
            with self._store.read() as db:
                changed = len(index.changed_since(db, contents.header.generation)[0])
            if changed > _SHARE * max(len(index), SMALLEST):
                self._name(self._file.change(token, self._changes(index)))
        except OSError as error:
            log.warning("%s: its templates cannot be kept beside it: %s", self._store.path, error)

    def erase(self, index: TemplateIndex) -> list[bytes]:
        """Take everybody who was erased or changed out of the file; what stood there, to be searched for."""

        def stale(generation: int) -> list[int]:
            with self._store.read() as db:
                return index.changed_since(db, generation)[0]

        return self._file.erase(self._token(), stale) if self._file.files() else []

    def close(self, index: TemplateIndex) -> None:
        """Before the gallery is closed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if index.generation >= 0:
            try:
                self.keep_up(index, closing=True)
            except DataError as error:
                log.warning("%s: its templates were not kept beside it: %s", self._store.path, error)

    def _begin(self, index: TemplateIndex) -> Writer | None:
        token = self._token()
        contents = self._file.read(token) if token else None
        with self._store.read() as db:
            generation = self._store.generation(db)
            count = db.execute("SELECT count(*) FROM (SELECT 1 FROM subjects LIMIT ?)", (SMALLEST,)).fetchone()[0]
        if contents is not None and contents.header.generation <= generation and _mostly_used(contents):
            with self._lock.exclusive():
                index.adopt(contents, self._file.map(contents))
            self._thread = threading.Thread(target=self._verify, args=(index, contents), daemon=True)
            self._thread.start()
        elif count >= SMALLEST and not self._store.read_only:
            writer = self._file.write()
            index.tee = writer.add
            return writer
        return None

    def _changes(self, index: TemplateIndex):
        def load(generation: int):
            with self._store.read() as db:
                stale, fresh = index.changed_since(db, generation)
                return self._store.generation(db), stale, list(fresh)

        return load

    def _token(self) -> str:
        return self._store.settings().get(_SETTING, "")

    def _name(self, token: str | None) -> None:
        if token is not None:
            with self._store.write() as db:
                self._store.set(db, _SETTING, token)

    def _verify(self, index: TemplateIndex, contents: Contents) -> None:
        """Read the file's checksums, block by block, and bring the rows into memory, where they are searched faster."""
        rows = contents.header.rows
        for start in range(0, rows, _STEP):
            if self._stop.is_set():
                return
            blocks = range(start // BLOCK, -(-min(rows, start + _STEP) // BLOCK))
            try:
                whole = all(self._file.whole(contents, block) for block in blocks)
            except (OSError, DataError):
                whole = False
            if not whole:
                self.renew()
                return
            with self._lock.shared():
                index.vectors.copy(start, start + _STEP)
        with self._lock.exclusive():
            index.vectors.copied()
            index.unverified = False

    def renew(self) -> None:
        """Do without the file, which is damaged: the next opening makes another."""
        log.warning("%s: the templates kept beside it are damaged; they are made anew", self._store.path)
        try:
            if not self._store.read_only:
                self._file.remove()
            self._rebuild()
        except (StorageError, OSError) as error:
            log.warning("%s: %s", self._store.path, error)

    def problems(self) -> list[str]:
        """What is wrong with the file, every block read."""
        contents = self._file.read(self._token())
        if contents is None:
            return []
        blocks = range(-(-contents.header.rows // BLOCK))
        return [f"templates {b * BLOCK} and following" for b in blocks if not self._file.whole(contents, b)]


def _mostly_used(contents: Contents) -> bool:
    return bool(np.count_nonzero(contents.ids) >= _USED * len(contents.ids))
