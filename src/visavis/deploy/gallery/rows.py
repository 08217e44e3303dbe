"""Rows of a gallery's file: what of them is encrypted and to which place it is bound, and the checksum each carries."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from visavis.deploy.gallery.encryption import Cipher, NoCipher
from visavis.deploy.gallery.schema import COLUMNS, WITH_CROP, columns
from visavis.errors import DataError

Row = Sequence[Any]
_FLOAT = struct.Struct("<cd").pack


class Rows:
    """Encrypts, decrypts and sums the rows of one gallery.

    Encrypted bytes are bound to gallery, table, column and row: AES-GCM's authenticated data is their names, so that
    bytes moved elsewhere do not open. A row's checksum is over all its columns (but the crop, which has its own):
    CRC-32 in a plain gallery, in an encrypted one a message authentication code under the key, so that no column,
    encrypted or not, can be exchanged without it.
    """

    def __init__(self, cipher: Cipher, context: bytes) -> None:
        self._cipher = cipher
        self.context = context
        self.encrypted = not isinstance(cipher, NoCipher)

    def encrypt(self, plaintext: bytes | None, table: str, column: str, row: int) -> bytes | None:
        """Bytes as the file holds them in that place."""
        if plaintext is None or not self.encrypted:
            return plaintext
        return self._cipher.encrypt(plaintext, self._place(table, column, row))

    def decrypt(self, stored: bytes, table: str, column: str, row: int) -> bytes:
        """Bytes of that place as they were before encryption.

        Raises:
            DataError: another key, another place, or changed.
        """
        return self._cipher.decrypt(stored, self._place(table, column, row)) if self.encrypted else bytes(stored)

    def encrypt_text(self, plaintext: str | None, table: str, column: str, row: int) -> bytes | str | None:
        """A text as the file holds it; the empty one is never encrypted."""
        return self.encrypt(plaintext.encode(), table, column, row) if plaintext and self.encrypted else plaintext

    def text(self, stored: bytes | str | None, table: str, column: str, row: int) -> str | None:
        """The text of that place before encryption."""
        return self.decrypt(stored, table, column, row).decode() if isinstance(stored, bytes) else stored

    def digest(self, plaintext: bytes | None) -> bytes | None:
        """What stands for a digest in the file, always the same for the same, and opened by `plain_digest`."""
        return None if not plaintext else self._cipher.lookup(plaintext, self.context)

    def earlier_digest(self, plaintext: bytes | None) -> bytes | None:
        """What stands for a digest in an encrypted gallery that was of format 1 or 2; nothing opens it."""
        return None if plaintext is None or not self.encrypted else self._cipher.digest(plaintext, self.context)

    def plain_digest(self, stored: bytes | None) -> bytes | None:
        """A digest as it was given; None where there is none or none can be had (`earlier_digest`)."""
        return None if stored is None else self._cipher.plain_lookup(stored, self.context)

    def label(self, key: str) -> str:
        """What the column `subjects.key` holds for a name's comparison form."""
        return self._cipher.digest(key.encode(), self.context).hex() if self.encrypted else key

    def checksum(self, table: str, values: Row) -> int:
        """The checksum of a row's columns, in the order of `schema.COLUMNS`."""
        return self._cipher.checksum(_plain_bytes(table, values), self.context)

    def crop_checksum(self, crop: bytes | None) -> int | None:
        """The checksum of a crop as stored."""
        return None if crop is None else self._cipher.checksum(crop, self.context)

    def with_crop(self, row: Row, crop: bytes | None, table: str) -> tuple[Any, ...]:
        """A row of a table with crops, made whole: `row` without `crop_checksum`, and the plain crop."""
        stored = self.encrypt(crop, table, "crop", row[0])
        return (*row, self.crop_checksum(stored), stored)

    def insert(self, db: Any, table: str, rows: Iterable[Row]) -> None:
        """Write rows given in the order of `schema.COLUMNS`, followed by the crop where the table has one."""
        crops = table in WITH_CROP
        n = len(COLUMNS[table])
        marks = ",".join("?" * (n + 1 + crops))
        db.executemany(
            f"INSERT INTO {table} ({columns(table)}{', crop' if crops else ''}) VALUES ({marks})",
            ((*row[:n], self.checksum(table, row[:n]), *row[n:]) for row in rows),
        )

    def next_id(self, db: Any, table: str) -> int:
        """The number of the next row; those of erased rows are not given again. Call inside a write."""
        row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return 1 if row is None else row[0] + 1

    def put_setting(self, db: Any, key: str, value: str) -> None:
        """Write one setting."""
        row = (key, value, self.checksum("settings", (key, value)))
        db.execute(
            "INSERT INTO settings VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, "
            "checksum = excluded.checksum",
            row,
        )

    def resum(self, db: Any, table: str, where: str, values: Row = ()) -> None:
        """Sum anew rows that were changed on purpose; `verify` them before the change, or damage is made good."""
        found = db.execute(f"SELECT {', '.join(COLUMNS[table])} FROM {table} WHERE {where}", values).fetchall()
        for row in found:
            db.execute(f"UPDATE {table} SET checksum = ? WHERE id = ?", (self.checksum(table, row), row[0]))

    def damaged(self, db: Any, table: str, where: str = "TRUE", values: Row = ()) -> Iterator[Any]:
        """Ids (keys, of settings) of the rows whose checksum does not fit; crops are read too."""
        crops = table in WITH_CROP
        for row in db.execute(f"SELECT {columns(table)}{', crop' if crops else ''} FROM {table} WHERE {where}", values):
            end = -2 if crops else -1
            whole = row[end] == self.checksum(table, row[:end])
            if not whole or (crops and row[-3] != self.crop_checksum(row[-1])):
                yield row[0]

    def damaged_of(self, db: Any, table: str, numbers: Sequence[int]) -> Iterator[int]:
        """Of the rows with these numbers those whose checksum does not fit."""
        for start in range(0, len(numbers), 500):
            part = numbers[start : start + 500]
            yield from self.damaged(db, table, f"id IN ({','.join('?' * len(part))})", part)

    def define(self, db: Any) -> None:
        """Let queries of a connection read encrypted texts."""
        db.text_factory = _text
        for column in ("name", "consent"):
            db.create_function(f"plain_{column}", 2, functools.partial(self._shown, column))
        db.create_function("fold", 1, str.casefold, deterministic=True)

    def _shown(self, column: str, row: int, stored: bytes) -> str:
        """A text for a query, which an error would end: such a row's checksum does not fit either."""
        try:
            return self.decrypt(stored, "subjects", column, row).decode() if stored else ""
        except (DataError, UnicodeDecodeError):
            return "(cannot be decrypted)"

    def _place(self, table: str, column: str, row: int) -> bytes:
        return b"%s\0%s\0%s\0%d" % (self.context, table.encode(), column.encode(), row)


def _text(raw: bytes) -> str:
    """A text of the file; what is damaged may be no UTF-8, and is told by its checksum."""
    return raw.decode(errors="surrogateescape")


def _plain_bytes(table: str, values: Row) -> bytes:
    """Values as bytes, no two rows alike: each with its kind and, if it has one, its length."""
    parts = [table.encode()]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, float):
            parts.append(_FLOAT(b"f", value))
        elif isinstance(value, int):
            parts.append(b"i%d;" % value)
        elif isinstance(value, str):
            raw = value.encode(errors="surrogateescape")
            parts.append(b"t%d;%b" % (len(raw), raw))
        else:
            parts.append(b"b%d;" % len(value))
            parts.append(value)
    return b"".join(parts)
