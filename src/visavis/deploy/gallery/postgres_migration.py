"""Galleries in PostgreSQL of format 1 brought to the present one, in one transaction."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

import numpy as np

from visavis.deploy.gallery.encryption import NoCipher
from visavis.deploy.gallery.index import TemplateIndex
from visavis.deploy.gallery.names import name_key
from visavis.deploy.gallery.postgres import open_pool
from visavis.deploy.gallery.postgres_dump import dump
from visavis.deploy.gallery.postgres_pool import FORMAT, Connection, PostgresPool
from visavis.deploy.gallery.postgres_schema import lock_creation, make_tables, tables, write_derived
from visavis.deploy.gallery.postgres_store import PostgresRows
from visavis.errors import DataError

log = logging.getLogger(__name__)
_BATCH = 1000
_OLD = ("meta", "subjects", "samples")


def backup_and_migrate(address: str, copy: Path) -> bool:
    """Write a gallery of format 1 into a file by pg_dump, then `migrate` it; False when it is up to date already.

    Raises:
        DataError: the copy cannot be made; then nothing is changed.
    """
    pool, schema = open_pool(address, None)
    try:
        with pool.transaction(read_only=True) as db:
            if "settings" in tables(db, schema):
                return False
        dump(pool, schema, copy)
        return migrate(pool, schema)
    finally:
        pool.close()


def migrate(pool: PostgresPool, schema: str) -> bool:
    """Bring a gallery of format 1 to the present one; False when it is there already.

    Make a copy with pg_dump before. Programs of format 1 that are still connected wait, and are refused afterwards.

    Raises:
        DataError: no gallery.
    """
    with pool.transaction() as db:
        lock_creation(db)
        there = tables(db, schema)
        if "settings" in there:
            return False
        if not there >= set(_OLD):
            raise DataError(f"{pool.name}: no such gallery")
        db.execute(f"LOCK TABLE {', '.join(_OLD)} IN ACCESS EXCLUSIVE MODE")
        query = "SELECT 1 FROM pg_indexes WHERE schemaname = ? AND indexdef LIKE ?"
        approximate = db.execute(query, (schema, "%USING hnsw%")).fetchone() is not None
        for name in _OLD:
            db.execute(f"ALTER TABLE {name} RENAME TO old_{name}")
        meta = dict(db.execute("SELECT key, value FROM old_meta").fetchall())
        make_tables(db, int(meta["dim"]), approximate)
        rows = PostgresRows(NoCipher(), b"")
        fresh = {"uuid": str(uuid.uuid4()), "sealed": "", "generation": "1", "format": str(FORMAT)}
        for key, value in (meta | fresh).items():
            rows.put_setting(db, key, value)
        _subjects(db, rows)
        _samples(db, rows)
        ids = [row[0] for row in db.execute("SELECT id FROM subjects ORDER BY id").fetchall()]
        write_derived(db, TemplateIndex(int(meta["dim"]), "float32", rows), ids)
        for name in ("samples", "subjects"):  # numbers of erased rows are not given again
            place = "pg_get_serial_sequence(?, 'id')"
            sequence = db.execute(f"SELECT {place}", (f"old_{name}",)).fetchone()[0]
            db.execute(f"SELECT setval({place}, last_value, is_called) FROM {sequence}", (name,))
        for name in reversed(_OLD):  # what refers to another goes first
            db.execute(f"DROP TABLE old_{name}")
    log.warning("%s: brought from format 1 to %d", pool.name, FORMAT)
    return True


def _subjects(db: Connection, rows: PostgresRows) -> None:
    taken: set[str] = set()
    fresh = []
    for number, name, consent, created, expires in db.execute(
        "SELECT id, name, consent, created, expires FROM old_subjects ORDER BY id"
    ).fetchall():
        label = rows.label(name_key(name) or name)
        if label in taken:
            log.warning("subject %d bears the name of another but for characters nobody sees; rename one", number)
            label = rows.label(f"{name_key(name)}\0{number}")
        taken.add(label)
        fresh.append((number, label, name, consent, created, expires, 1))
    rows.insert(db, "subjects", fresh)


def _samples(db: Connection, rows: PostgresRows) -> None:
    last = -1
    while True:
        batch = db.execute(
            "SELECT id, subject, vector::text, weight, picture, crop, created FROM old_samples WHERE id > ? "
            "ORDER BY id LIMIT ?",
            (last, _BATCH),
        ).fetchall()
        if not batch:
            return
        last = batch[-1][0]
        fresh = []
        for number, subject, text, weight, image, crop, created in batch:
            vector = np.array(text[1:-1].split(","), np.float32).tobytes()
            row = (number, subject, 0, vector, weight, None, image, None, None, created)
            fresh.append(rows.with_crop(row, crop, "samples"))
        rows.insert(db, "samples", fresh)
