"""The audit log: one event a line, each bound to the one before by its digest, appended by any number of processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from visavis.errors import VisavisError
from visavis.files import exclusive, open_private

HEAD = ".head"
_DIGEST = b', "digest": "'
_PATIENCE = 5.0  # seconds to wait for another process
_LATEST = 1 << 22  # bytes at the end in which the latest records are looked for
_TAIL = 1 << 14  # bytes at the end in which the last record is looked for first


class AuditError(VisavisError):
    """The audit log cannot be opened or written; what it should tell of must not happen."""


@dataclass(frozen=True)
class Link:
    """The end of a chain: the number of the last record and its digest."""

    number: int = 0
    digest: str = "0" * 64


@final
class AuditLog:
    """Appends events to a file that only its owner may read.

    A record is a JSON object with `number`, `time` (UTC), `event`, what the event is about, `previous` (the digest of
    the record before) and `digest` (SHA-256 of the line up to there). `FILE.head` holds the last number and digest, so
    that records cut off at the end show too; it is the lock between processes. A file that was moved away (logrotate)
    is continued in a new one, with the next number. What could not be written is kept and written first when it can be.

    Raises:
        AuditError: the file cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._thread = threading.Lock()
        self._kept: list[dict[str, Any]] = []
        self._file = self._head = -1
        self._end = (-1, Link())  # the file's size after the last record this process wrote, and that record's link
        try:
            self._head = _open(Path(f"{self.path}{HEAD}"))
            self._file = _open(self.path, os.O_APPEND)
            with _alone(self._head):
                if not os.fstat(self._head).st_size:  # has its block from now on, however full the disk gets
                    _remember(self._head, Link())
        except OSError as error:
            self.close()
            raise self._cannot(error) from error

    @property
    def behind(self) -> bool:
        """Whether there are events that could not be written yet."""
        return bool(self._kept)

    def write(self, event: str, *, durable: bool = False, keep: bool = True, **about: Any) -> None:
        """Append an event.

        Args:
            event: what happened.
            durable: wait until the disk has it.
            keep: when it cannot be written, remember it for later; false for what then will not happen.
            about: further fields, plain values.

        Raises:
            AuditError: it could not be written.
        """
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **about}
        with self._thread:
            self._append([*self._kept, record], record if keep else None, durable=durable)

    def flush(self) -> None:
        """Write what could not be written before.

        Raises:
            AuditError: it still cannot be.
        """
        with self._thread:
            if self._kept:
                self._append(list(self._kept), None, durable=False)

    def latest(self, count: int) -> list[dict[str, Any]]:
        """The last records, oldest first."""
        with open(self.path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LATEST))
            lines = deque(file, maxlen=count)
        return [parts[0] for parts in map(split_line, (line.rstrip(b"\n") for line in lines)) if parts is not None]

    def close(self) -> None:
        """Let go of the file."""
        for handle in (self._file, self._head):
            if handle >= 0:
                os.close(handle)
        self._file = self._head = -1

    def _append(self, records: list[dict[str, Any]], keep: dict[str, Any] | None, *, durable: bool) -> None:
        try:
            with _alone(self._head):
                self._follow()
                size = os.fstat(self._file).st_size
                last, torn = (self._end[1], False) if size == self._end[0] else last_link(self._file, size)
                before = read_head(self._head)
                data = b"\n" if torn else b""
                if before.number > last.number:  # records were cut off, or the file was moved away
                    last = before
                for record in records:
                    line, last = _line(record, last)
                    data += line
                _write(self._file, data, size)
                self._end = (size + len(data), last)
                _remember(self._head, last)
                if durable:
                    os.fsync(self._file)
        except OSError as error:
            if keep is not None:
                self._kept.append(keep)
            raise self._cannot(error) from error
        self._kept = []

    def _follow(self) -> None:
        """Open the file anew when another one, or none, stands at its place."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            there = None
        if there is None or not os.path.samestat(there, os.fstat(self._file)):
            fresh = _open(self.path, os.O_APPEND)
            os.close(self._file)
            self._file, self._end = fresh, (-1, Link())

    def _cannot(self, error: OSError) -> AuditError:
        return AuditError(f"the audit log {self.path} cannot be written ({error.strerror})")


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


def _remember(file: int, link: Link) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, f"{link.number:020d} {link.digest}\n".encode())


def _line(record: dict[str, Any], last: Link) -> tuple[bytes, Link]:
    number = last.number + 1
    body = json.dumps({"number": number, **record, "previous": last.digest}).removesuffix("}").encode()
    digest = hashlib.sha256(body).hexdigest()
    return body + _DIGEST + digest.encode() + b'"}\n', Link(number, digest)


def _open(path: Path, flags: int = 0) -> int:
    handle = open_private(path, os.O_RDWR | flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is no regular file")
    return handle


def _read(file: int, length: int, start: int) -> bytes:
    os.lseek(file, start, os.SEEK_SET)
    return os.read(file, length)


def _write(file: int, data: bytes, size: int) -> None:
    """All or nothing."""
    try:
        done = os.write(file, data)
    except OSError:
        os.ftruncate(file, size)
        raise
    if done < len(data):
        os.ftruncate(file, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _alone(head: int) -> Iterator[None]:
    """Hold the lock between processes.

    Raises:
        OSError: another process has held it for too long; it may have been stopped.
    """
    end = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(exclusive(head, wait=False))
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise OSError(errno.ETIMEDOUT, f"another process has held it for {_PATIENCE:g} s") from error
                time.sleep(0.0005)
        yield
