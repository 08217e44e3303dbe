"""The audit log: one event a line, each bound to the one before by its digest, appended by any number of processes."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from visavis.deploy.server.audit_chain import Link, chained_line, last_link, read_head, remember_link, split_line
from visavis.errors import VisavisError
from visavis.files import exclusive, open_private

log = logging.getLogger(__name__)

HEAD = ".head"
_PATIENCE = 5.0  # seconds to wait for another process
_LATEST = 1 << 22  # bytes at the end in which the latest records are looked for


class AuditError(VisavisError):
    """The audit log cannot be opened or written; what it should tell of must not happen."""


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
                    remember_link(self._head, Link())
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
                if before.number >= last.number:  # the file's own end may be cut off, replaced, or moved away
                    last = before
                for record in records:
                    line, last = chained_line(record, last)
                    data += line
                _write(self._file, data, size)
                self._end = (size + len(data), last)
                remember_link(self._head, last)
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


def _open(path: Path, flags: int = 0) -> int:
    handle = open_private(path, os.O_RDWR | flags)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(0, "it is no regular file")
    if os.name == "posix" and mode & 0o077:
        log.warning("others than its owner can read or write %s; type: chmod 600 %s", path, path)
    return handle


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
