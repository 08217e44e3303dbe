"""The gallery over PostgreSQL with pgvector, for galleries that several machines share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery import postgres_erasure
from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.encryption import NoCipher
from visavis.deploy.gallery.index import TemplateIndex, unit_vectors
from visavis.deploy.gallery.locks import SharedLock
from visavis.deploy.gallery.model_identity import ModelIdentity, new_settings, open_binding
from visavis.deploy.gallery.postgres_address import is_postgres, split_schema, without_password
from visavis.deploy.gallery.postgres_pool import FORMAT, PostgresPool
from visavis.deploy.gallery.postgres_schema import exists, graph_of, write_derived
from visavis.deploy.gallery.postgres_store import PostgresRows, PostgresStore
from visavis.deploy.gallery.records import Candidate, Forgotten
from visavis.deploy.gallery.retention import checked_days
from visavis.deploy.gallery.table_access import LIVE, Progress
from visavis.errors import DataError

_MODEL_PATH = "model_path"


@dataclass(frozen=True)
class _Counted:
    """How many subjects could be found at a generation, until which time, and the most templates of one."""

    generation: int
    subjects: int
    until: float
    most_templates: int


@final
class PgGallery(GalleryBase):
    """`Gallery` in a schema of a PostgreSQL database with the extension vector (pgvector ≥ 0.5).

    Names, arguments and answers are those of `Gallery`. It differs in what the server does itself: searching (exact, or
    by HNSW when `approximate`), durability, and erasing, where the receipt can speak of rows but not of the server's
    files. There is no encryption by the client: the server could not search.

    Args:
        dsn: as for psycopg, e.g. postgresql://user@host/database?schema=NAME; a password belongs into PGPASSWORD,
            PGPASSFILE or a service file.
        model: as for `Gallery`.
        schema: whose tables; several galleries of one database have several. Taken from `dsn`, or `visavis`, when None.
        create: make the schema when it is absent.
        read_only: open one that cannot (a standby's) or shall not be written.
        approximate: keep an HNSW index in a new gallery; faster, and may miss a subject.
        retention_days: default for new subjects; stored when the gallery is made.

    Attributes:
        approximate: whether the server keeps an HNSW index, and may miss a subject.

    Raises:
        DataError: psycopg is not installed, no such gallery, or another model's.
        StorageError: the server cannot be reached or refuses.
    """

    _contains = "strpos((SELECT folded FROM folded_names WHERE subject = subjects.id), ?) > 0"
    _order = 'name COLLATE "C"'

    def __init__(
        self,
        dsn: str,
        model: ModelIdentity | None = None,
        *,
        schema: str | None = None,
        create: bool = False,
        read_only: bool = False,
        approximate: bool = False,
        retention_days: float | None = None,
    ) -> None:
        if retention_days is not None:
            checked_days(retention_days)
        pool, schema = open_pool(dsn, schema)
        try:
            new = None if model is None or not create else _creator(model, retention_days)
            if create and model is None and not exists(pool, schema):
                raise DataError(f"{pool.name}: a new gallery wants the model it is for; add --model MODEL")
            self._store = PostgresStore(
                pool, schema, create=new, dim=0 if model is None else model.dim, approximate=approximate,
                read_only=read_only,
            )  # fmt: skip
            self.path = self._store.path
            self.model, _ = open_binding(self._store, model, NoCipher())
            self._rows = PostgresRows(NoCipher(), b"")
            self._store.use(self._rows)
            self.approximate, self._goes_on = graph_of(pool)
            days = self._store.settings().get("retention_days")
            self._retention_days = float(days) if days else None
        except BaseException:
            pool.close()
            raise
        self._index = TemplateIndex(self.model.dim, "float32", self._rows)
        self._lock = SharedLock()
        self._counted = _Counted(-1, 0, 0.0, 1)

    @property
    def retention_days(self) -> float | None:
        """How long new subjects are kept unless said otherwise."""
        return self._retention_days

    def refresh(self) -> int:
        """How many subjects can be found; the server's index needs no refreshing."""
        with self._store.read() as db:
            return self._count(db).subjects

    def __len__(self) -> int:
        return self.refresh()

    def _count(self, db: Any) -> _Counted:
        """The count at the present generation, taken anew when something changed or somebody's time is over."""
        generation, now = self._store.generation(db), time.time()
        if self._counted.generation != generation or now >= self._counted.until:
            subjects, until = db.execute(
                f"SELECT count(*), coalesce(min(expires), 'infinity') FROM subjects WHERE {LIVE}", (now,)
            ).fetchone()
            most = db.execute("SELECT coalesce(max(number), 0) + 1 FROM templates").fetchone()[0]
            self._counted = _Counted(generation, subjects, until, most)
        return self._counted

    def search(self, embeddings: npt.ArrayLike, *, top: int = 5) -> list[tuple[Candidate, ...]]:
        """The most similar subjects to each probe; see `Gallery.search`."""
        probes, top = unit_vectors(embeddings, self.model.dim), self._most(top)
        with self._store.read() as db:
            counted = self._count(db)
            wanted = counted.most_templates * min(top, max(counted.subjects, 1))
            if self.approximate:
                db.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(40, 2 * wanted))}")
            if self.approximate and self._goes_on:
                db.execute("SET LOCAL hnsw.iterative_scan = strict_order")  # past those whose time is over
            found = [self._nearest(db, probe, wanted, top) for probe in probes]
            names = self._names(db, {subject for best in found for subject, _ in best})
        return [tuple(Candidate(subject, names[subject], float(value)) for subject, value in best) for best in found]

    def _nearest(self, db: Any, probe: npt.NDArray[np.float32], wanted: int, top: int) -> list[tuple[int, float]]:
        """Subjects and similarities, best first; of the templates of a subject the most similar counts."""
        text = str(probe.tolist())
        return db.execute(
            "WITH near AS (SELECT subject, vector <#> ?::vector AS distance FROM templates "
            f"JOIN subjects ON subjects.id = subject WHERE {LIVE} ORDER BY vector <#> ?::vector LIMIT ?) "
            "SELECT subject, -min(distance) FROM near GROUP BY subject ORDER BY min(distance), subject LIMIT ?",
            (text, time.time(), text, wanted, top),
        ).fetchall()

    def _fused(self, db: Any, subjects: Sequence[int]) -> None:
        write_derived(db, self._index, subjects)

    def _delete(
        self, db: Any, subjects: Sequence[int], samples: Sequence[int], faces: Sequence[int]
    ) -> postgres_erasure.PostgresTraces:
        return postgres_erasure.delete(self._store, db, subjects, samples=samples, unknown_faces=faces)

    def _finish(self, traces: postgres_erasure.PostgresTraces, progress: Progress | None, note: str = "") -> Forgotten:
        with self._lock.exclusive():
            self._index.remove(traces.subjects)
        return postgres_erasure.finish(self._store.pool, traces, wait=self._store.wait, progress=progress, note=note)

    @property
    def model_path(self) -> str | None:
        """Where the model named last lies, on the machine that named it."""
        return self._store.settings().get(_MODEL_PATH)

    def remember_model(self, path: str) -> None:
        """Note where the model lies, for those who name none."""
        if path != self.model_path:
            with self._store.write() as db:
                self._rows.put_setting(db, _MODEL_PATH, path)


def open_pool(dsn: str, schema: str | None) -> tuple[PostgresPool, str]:
    """Connections to the database of an address, and the schema it names."""
    shown = without_password(dsn) if is_postgres(dsn) else f"postgresql, schema {schema or 'visavis'}"
    named = schema
    if is_postgres(dsn):
        dsn, named = split_schema(dsn)
    return PostgresPool(dsn, schema or named or "visavis", name=shown), schema or named or "visavis"


def _creator(model: ModelIdentity, retention_days: float | None) -> Any:
    """Writes the settings of a new gallery, inside the transaction that makes its tables."""
    settings = {**new_settings(model, NoCipher(), retention_days), "format": str(FORMAT)}

    def create(db: Any) -> None:
        rows = PostgresRows(NoCipher(), b"")
        for key, value in settings.items():
            rows.put_setting(db, key, value)

    return create
