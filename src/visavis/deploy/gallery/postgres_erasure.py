"""Forgetting in PostgreSQL: deleted rows stay in a table's file until it is rewritten and nobody sees them any more."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from visavis.deploy.gallery.base import Progress
from visavis.deploy.gallery.postgres_pool import Connection, PostgresPool
from visavis.deploy.gallery.postgres_store import PostgresStore
from visavis.deploy.gallery.records import Forgotten, StorageError

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


def delete(store: PostgresStore, ids: Sequence[int]) -> Traces:
    """Delete subjects with everything of theirs in one transaction; those that are gone already are passed over."""
    with store.write() as db:
        return _delete(store, db, list(ids))


def _delete(store: PostgresStore, db: Connection, ids: list[int]) -> Traces:
    gone = [row[0] for row in db.execute("SELECT id FROM subjects WHERE id = ANY(?) ORDER BY id", (ids,))]
    generation = store.next_generation(db)
    db.executemany("INSERT INTO forgotten VALUES (?, ?)", [(subject, generation) for subject in gone])
    samples, crops = db.execute("SELECT count(*), count(crop) FROM samples WHERE subject = ANY(?)", (gone,)).fetchone()
    db.execute("DELETE FROM subjects WHERE id = ANY(?)", (gone,))
    transaction = db.execute("SELECT pg_current_xact_id()::xid::text").fetchone()[0]
    return Traces(tuple(gone), samples, crops, transaction)


def finish(pool: PostgresPool, traces: Traces, *, wait: float, progress: Progress | None = None) -> Forgotten:
    """Rewrite the tables without the deleted rows, and look at what is left.

    Args:
        pool: the gallery's.
        traces: what was deleted.
        wait: seconds to wait for transactions that still see the rows, and for the tables.
        progress: told what is being done.
    """
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
        bytes_searched=0, fingerprints=0, found=found, complete=complete and found == 0, note=note,
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
        kept = sum(_vacuum(db, table) for table in ("samples", "templates", "subjects"))
    return kept == 0 or (holders == 0 and hidden == 0)


def _vacuum(db: Connection, table: str) -> int:
    """Rewrite one table; the number of dead rows the server had to keep, its own or others' later ones."""
    said: list[str] = []
    with db.notices(said):
        db.execute(f"VACUUM (FULL, VERBOSE) {table}")
    counts = [int(number.group()) for text in said if (number := re.search(r"\d+", text))]
    return max(counts, default=1)
