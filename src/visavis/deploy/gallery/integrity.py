"""Reading a gallery's file from end to end: what of it is not as it was written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import numpy as np

from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.schema import SCHEMA
from visavis.errors import DataError

_OFF = 1e-3  # of the length of a unit vector; float32 is within 1e-6


def problems(db: sqlite3.Connection, rows: Rows, dim: int) -> Iterator[str]:
    """Everything that is wrong, in words that name the subject; call inside a read of the store."""
    structure = [row[0] for row in db.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
    yield from structure
    try:
        yield from _tables(db)
        yield from row_problems(db, rows, dim)
    except sqlite3.DatabaseError:
        if not structure:
            raise


def row_problems(db: Any, rows: Rows, dim: int) -> Iterator[str]:
    """What is wrong with single rows, in a file or in PostgreSQL."""
    for key in rows.damaged(db, "settings"):
        yield f"the setting {key!r} is not as it was written"
    for number in rows.damaged(db, "subjects"):
        yield f"the row of subject {number} is not as it was written"
    yield from _vectors(db, rows, dim)


def _tables(db: sqlite3.Connection) -> Iterator[str]:
    made = {row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}
    if made != set(SCHEMA):
        yield "the tables are not those of this format"
    for table, row, parent, _ in db.execute("PRAGMA foreign_key_check").fetchmany(5):
        yield f"row {row} of {table} belongs to none of {parent}"
    for table in ("subjects", "samples", "unknown_faces"):
        query = f"SELECT max(id) > (SELECT seq FROM sqlite_sequence WHERE name = '{table}') FROM {table}"
        if db.execute(query).fetchone()[0]:
            yield f"the next number of {table} is one that was given already"
    for row in db.execute("SELECT id FROM subjects JOIN forgotten ON id = subject"):
        yield f"subject {row[0]} was erased and is there"


def _vectors(db: Any, rows: Rows, dim: int) -> Iterator[str]:
    for table in ("samples", "unknown_faces"):
        bad = set(rows.damaged(db, table))
        owner = "subject" if table == "samples" else "0"
        for number, subject, stored in db.execute(f"SELECT id, {owner}, vector FROM {table}"):
            whose = f"sample {number} of subject {subject}" if table == "samples" else f"unknown face {number}"
            if number in bad:
                yield f"{whose} is not as it was written"
            elif (wrong := _wrong(stored, rows, table, number, dim)) is not None:
                yield f"{whose} {wrong}"


def _wrong(stored: bytes, rows: Rows, table: str, number: int, dim: int) -> str | None:
    try:
        plain = rows.decrypt(stored, table, "vector", number)
    except DataError:
        return "cannot be decrypted"
    if len(plain) != 4 * dim:
        return f"is not a vector of {dim} numbers"
    length = float(np.linalg.norm(np.frombuffer(plain, np.float32)))
    if table == "samples" and not abs(length - 1) < _OFF:  # NaN too; unknown faces are kept as they came
        return f"is not of length 1 but {length:g}"
    return None
