"""Rewriting a gallery's tables in PostgreSQL, so that their files hold no row that was deleted."""

from __future__ import annotations

import re
import time

from visavis.deploy.gallery.postgres_pool import Connection, PostgresPool

TABLES = ("samples", "templates", "folded_names", "subjects", "unknown_faces")
# Whoever holds a snapshot as old as transaction `?`, a standby by its feedback too: its rows outlive VACUUM FULL.
# Sessions of other roles show nothing to a role without pg_read_all_stats: as `query` says so, they are counted apart.
_HOLDERS = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE coalesce(datname, current_database()) = current_database()
          AND pid <> pg_backend_pid() AND (
            age(backend_xmin) >= age(?::xid) OR age(backend_xid) >= age(?::xid)))
     + (SELECT count(*) FROM pg_prepared_xacts WHERE age(transaction) >= age(?::xid))
     + (SELECT count(*) FROM pg_replication_slots WHERE age(xmin) >= age(?::xid)),
       (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = '<insufficient privilege>')
"""


def rewrite(pool: PostgresPool, transaction: str, *, wait: float) -> bool:
    """VACUUM FULL once nobody sees what `transaction` deleted; whether nothing was left in the tables' files.

    Args:
        pool: the gallery's.
        transaction: the number of the one that deleted.
        wait: seconds for older transactions to end, and for the tables.
    """
    deadline = time.monotonic() + wait
    with pool.maintenance(wait=wait) as db:
        while True:
            holders, hidden = db.execute(_HOLDERS, (transaction,) * 4).fetchone()
            if not holders or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        kept = sum(_vacuum(db, table) for table in TABLES)
    return kept == 0 or (holders == 0 and hidden == 0)


def _vacuum(db: Connection, table: str) -> int:
    """Rewrite one table; the number of dead rows the server had to keep, its own or others' later ones."""
    said: list[str] = []
    with db.notices(said):
        db.execute(f"VACUUM (FULL, VERBOSE) {table}")
    counts = [int(number.group()) for text in said if (number := re.search(r"\d+", text))]
    return max(counts, default=1)
