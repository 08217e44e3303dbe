"""What differs between file systems and systems: locks that end with their holder, files only their owner reads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # everywhere else
    msvcrt = None

_LOCKED_BYTE = 1 << 30  # Windows locks bytes, and nobody may read a locked one: beyond what these files hold
_BUSY_SECONDS = 0.05


def open_private(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """Open a file that only its owner can read and write, made if it is not there; on Windows the folder decides."""
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)


@contextmanager
def exclusive(handle: int, *, wait: bool = True) -> Iterator[None]:
    """Hold the only lock on an open file among all processes; the kernel lets go of it when its holder ends.

    A file system without locks raises OSError; a system without them has nothing to hold.

    Raises:
        BlockingIOError: another holds it, and `wait` is false.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
    elif msvcrt is not None:
        _lock_byte(handle, wait=wait)
        try:
            yield
        finally:
            _at_lock(handle, msvcrt.LK_UNLCK)
    else:
        yield


def _lock_byte(handle: int, *, wait: bool) -> None:
    while True:
        try:
            _at_lock(handle, msvcrt.LK_NBLCK)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
            return
        except OSError as error:
            if not wait:
                raise BlockingIOError(error.errno, "another process holds the lock") from error
            time.sleep(_BUSY_SECONDS)


def _at_lock(handle: int, mode: int) -> None:
    before = os.lseek(handle, 0, os.SEEK_CUR)
    os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(handle, mode, 1)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    finally:
        os.lseek(handle, before, os.SEEK_SET)


@contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Hold the lock of a file made for it and removed afterwards; others wait.

    A waiter that wakes up over a file its holder has removed tries again, so that never two hold it.
    """
    while True:
        handle = open_private(path)
        try:
            with exclusive(handle):
                if not _still_there(handle, path):
                    continue
                try:
                    yield
                finally:
                    if os.name != "nt":  # an open file cannot be removed there
                        path.unlink(missing_ok=True)
                return
        finally:
            os.close(handle)


def _still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
