"""Forgetting in PostgreSQL: deleted rows stay in a table's file until it is rewritten and nobody sees them any more."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from visavis.deploy.gallery.base import Progress
from visavis.deploy.gallery.postgres_pool import Connection, PostgresPool
from visavis.deploy.gallery.postgres_store import PostgresStore
from visavis.deploy.gallery.records import Forgotten, StorageError, tables_of

_NOTE = "the rows are gone and the tables rewritten; the server's log and its backups are its administrator's to erase"
_HELD = (
    "the rows are gone, but a transaction that began before still sees them, so the tables' files keep them; let it "
    "end (pg_stat_activity), then: VACUUM FULL"
)
# Whoever holds a snapshot as old as transaction `?`: its rows outlive VACUUM FULL. Sessions of other roles show nothing
# to a role without pg_read_all_stats, and count as holders of the unknown (`query` says so).
_HOLDERS = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND (
            age(backend_xmin) >= age(?::xid) OR age(backend_xid) >= age(?::xid)))
     + (SELECT count(*) FROM pg_prepared_xacts WHERE age(transaction) >= age(?::xid))
     + (SELECT count(*) FROM pg_replication_slots WHERE age(xmin) >= age(?::xid)),
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = '<insufficient privilege>')
"""


@dataclass(frozen=True)
class Traces:
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
) -> Traces:
    """Delete subjects with everything of theirs, and single samples and faces; what is gone already is passed over.

    Call inside `store.write()`.
    """
    query = "SELECT id FROM subjects WHERE id = ANY(?) ORDER BY id"
    gone = [row[0] for row in db.execute(query, (list(subjects),)).fetchall()]
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
    return Traces(tuple(gone), samples_gone, crops + face_crops, transaction, faces)


def finish(
    pool: PostgresPool, traces: Traces, *, wait: float, progress: Progress | None = None, note: str = ""
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
    found, complete = len(gone), False
    if progress:
        progress("the server rewrites its tables")
    try:
        complete = _rewrite(pool, traces.transaction, wait)
        note = _NOTE if complete else _HELD
        with pool.transaction(read_only=True) as db:
            found = db.execute(
                "SELECT (SELECT count(*) FROM subjects WHERE id = ANY(?)) + "
                "(SELECT count(*) FROM samples WHERE subject = ANY(?))",
                (gone, gone),
            ).fetchone()[0]
    except StorageError as error:  # the rows are deleted; only the rewriting did not happen
        note = f"deleted, but the tables could not be rewritten: {error}"
    return Forgotten(
        subjects=len(gone), samples=traces.samples, crops=traces.crops, index_rows=len(gone), files=(),
        bytes_searched=0, fingerprints=0, found=found, complete=complete and found == 0 and not undone,
        note="; ".join(filter(None, [undone, note])),
        unknown_faces=traces.unknown_faces, ids=traces.subjects, tables=tables_of(
            subjects=len(gone), samples=traces.samples, unknown_faces=traces.unknown_faces
        ),
    )  # fmt: skip


def _rewrite(pool: PostgresPool, transaction: str, wait: float) -> bool:
    """VACUUM FULL once nobody sees the rows any more; whether nothing was left in the tables' files."""
    deadline = time.monotonic() + wait
    with pool.maintenance(wait=wait) as db:
        while True:
            holders, hidden = db.execute(_HOLDERS, (transaction,) * 4).fetchone()
            if not holders or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        kept = sum(_vacuum(db, table) for table in ("samples", "templates", "subjects", "unknown_faces"))
    return kept == 0 or (holders == 0 and hidden == 0)


def _vacuum(db: Connection, table: str) -> int:
    """Rewrite one table; the number of dead rows the server had to keep, its own or others' later ones."""
    said: list[str] = []
    with db.notices(said):
        db.execute(f"VACUUM (FULL, VERBOSE) {table}")
    counts = [int(number.group()) for text in said if (number := re.search(r"\d+", text))]
    return max(counts, default=1)
