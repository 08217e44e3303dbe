"""Forgetting in PostgreSQL: deleted rows stay in a table's file until it is rewritten and nobody sees them any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visavis.deploy.gallery.postgres_pool import Connection, PostgresPool
from visavis.deploy.gallery.postgres_store import PostgresStore
from visavis.deploy.gallery.postgres_vacuum import rewrite
from visavis.deploy.gallery.records import Forgotten, StorageError, UnknownSubject, tables_of
from visavis.deploy.gallery.table_access import Progress

_NOTE = (
    "the rows are gone and the tables rewritten; the server's log, its backups and files a crash of it left are its "
    "administrator's to erase"
)
_HELD = (
    "the rows are gone, but a transaction that began before still sees them, so the tables' files keep them; let it "
    "end (pg_stat_activity), then: VACUUM FULL"
)


@dataclass(frozen=True)
class PostgresTraces:
    """What an erasure removed: subject ids, counts, and the transaction after which nobody sees them."""

    subjects: tuple[int, ...]
    samples: int
    crops: int
    transaction: str
    unknown_faces: int = 0


def delete(
    store: PostgresStore,
    db: Connection,
    subjects: Sequence[int],
    *,
    samples: Sequence[int] = (),
    unknown_faces: Sequence[int] = (),
) -> PostgresTraces:
    """Delete subjects with everything of theirs, and single samples and faces; call inside `store.write()`.

    Raises:
        UnknownSubject: one of the subjects is gone already.
    """
    query = "SELECT id FROM subjects WHERE id = ANY(?) ORDER BY id"
    gone = [row[0] for row in db.execute(query, (list(subjects),)).fetchall()]
    for subject in sorted(set(subjects) - set(gone)):
        raise UnknownSubject(f"{store.path}: subject {subject} is gone already")
    generation = store.next_generation(db)
    db.executemany("INSERT INTO forgotten VALUES (?, ?)", [(subject, generation) for subject in gone])
    counts = []
    for table, which, ids in (
        ("samples", "subject = ANY(?) OR id = ANY(?)", (gone, list(samples))),
        ("unknown_faces", "id = ANY(?)", (list(unknown_faces),)),
    ):
        counts.append(db.execute(f"SELECT count(*), count(crop) FROM {table} WHERE {which}", ids).fetchone())
        db.execute(f"DELETE FROM {table} WHERE {which}", ids)
    db.execute("DELETE FROM subjects WHERE id = ANY(?)", (gone,))
    transaction = db.execute("SELECT pg_current_xact_id()::xid::text").fetchone()[0]
    (samples_gone, crops), (faces, face_crops) = counts
    return PostgresTraces(tuple(gone), samples_gone, crops + face_crops, transaction, faces)


def finish(
    pool: PostgresPool, traces: PostgresTraces, *, wait: float, progress: Progress | None = None, note: str = ""
) -> Forgotten:
    """Rewrite the tables without the deleted rows, and look at what is left.

    Args:
        pool: the gallery's.
        traces: what was deleted.
        wait: seconds to wait for transactions that still see the rows, and for the tables.
        progress: told what is being done.
        note: what else is to be done; makes the receipt incomplete.
    """
    undone = note
    gone = list(traces.subjects)
    if progress:
        progress("the server rewrites its tables")
    found, complete = len(gone), False
    try:
        complete = rewrite(pool, traces.transaction, wait=wait)
        note = _NOTE if complete else _HELD
    except StorageError as error:  # the rows are deleted; only the rewriting did not happen
        note = f"deleted, but the tables could not be rewritten: {error}"
    try:
        with pool.transaction(read_only=True) as db:
            found = db.execute(
                "SELECT (SELECT count(*) FROM subjects WHERE id = ANY(?)) + "
                "(SELECT count(*) FROM samples WHERE subject = ANY(?)) + "
                "(SELECT count(*) FROM templates WHERE subject = ANY(?))",
                (gone, gone, gone),
            ).fetchone()[0]
    except StorageError as error:  # what was deleted stays so, and is not to be asked for again
        complete, note = False, f"deleted, but what is left could not be looked for: {error}"
    return Forgotten(
        subjects=len(gone), samples=traces.samples, crops=traces.crops, index_rows=len(gone), files=(),
        bytes_searched=0, fingerprints=0, found=found, complete=complete and found == 0 and not undone,
        note="; ".join(filter(None, [undone, note])),
        unknown_faces=traces.unknown_faces, ids=traces.subjects, tables=tables_of(
            subjects=len(gone), samples=traces.samples, unknown_faces=traces.unknown_faces
        ),
    )  # fmt: skip
