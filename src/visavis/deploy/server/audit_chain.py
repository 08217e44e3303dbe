"""How records of the audit log are bound to each other: lines, digests, and the end of the chain."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

_DIGEST = b', "digest": "'
_TAIL = 1 << 14  # bytes at the end in which the last record is looked for first


@dataclass(frozen=True)
class Link:
    """The end of a chain: the number of the last record and its digest."""

    number: int = 0
    digest: str = "0" * 64


def split_line(line: bytes) -> tuple[dict[str, Any], Link, str] | None:
    """A record, its link and the digest its bytes have; None for a line that is no record."""
    body, found, digest = line.rpartition(_DIGEST)
    try:
        record = json.loads(line)
        link = Link(int(record["number"]), str(record["digest"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (record, link, hashlib.sha256(body).hexdigest()) if found and digest.endswith(b'"}') else None


def last_link(file: int, size: int) -> tuple[Link, bool]:
    """The last whole record's link, and whether the file ends within a line."""
    span = _TAIL
    while True:
        data = _read(file, min(span, size), max(0, size - span))
        torn = bool(data) and not data.endswith(b"\n")
        for line in reversed(data.split(b"\n")):
            parts = split_line(line) if line else None
            if parts is not None:
                return parts[1], torn
        if span >= size:
            return Link(), torn
        span *= 16


def read_head(file: int) -> Link:
    """The link that `FILE.head` remembers."""
    number, _, digest = _read(file, 200, 0).decode("ascii", "replace").strip().partition(" ")
    return Link(int(number), digest) if number.isdigit() and len(digest) == 64 else Link()


def remember_link(file: int, link: Link) -> None:
    """Write what `read_head` reads."""
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, f"{link.number:020d} {link.digest}\n".encode())


def chained_line(record: dict[str, Any], last: Link) -> tuple[bytes, Link]:
    """The line of a record that follows another, and its link."""
    number = last.number + 1
    body = json.dumps({"number": number, **record, "previous": last.digest}).removesuffix("}").encode()
    digest = hashlib.sha256(body).hexdigest()
    return body + _DIGEST + digest.encode() + b'"}\n', Link(number, digest)


def _read(file: int, length: int, start: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, length)
