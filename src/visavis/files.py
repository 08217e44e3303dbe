"""Files written whole or not at all, locks that end with their holder, files only their owner reads, digests."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from visavis.errors import DataError

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
PART = ".part"
_STALE_SECONDS = 86_400  # nobody writes one file for longer than a day
_NEW = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


_RESERVED: Counter[str] = Counter()
_SEEKING = threading.Lock()


def reserve(path: Path) -> None:
    """Say that SQLite holds locks on a database of this process, until `release`.

    POSIX gives up every lock a process holds on a file as soon as it closes any descriptor of it: whoever opens a path
    that somebody typed asks `is_reserved` first.
    """
    _RESERVED[str(path)] += 1


def release(path: Path) -> None:
    """End what `reserve` began."""
    _RESERVED[str(path)] -= 1


def is_reserved(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a database this process has open, or its log."""
    for held in [name for name, count in _RESERVED.items() if count > 0]:
        for end in ("", "-wal", "-shm", "-journal"):
            with suppress(OSError, ValueError):
                if os.path.samefile(path, held + end):
                    return True
    return False


def open_private(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """Open a file that only its owner can read and write, made if it is not there; on Windows the folder decides."""
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)


@contextmanager
def exclusive(handle: int, *, wait: bool = True) -> Generator[None]:
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
def lock_file(path: Path) -> Generator[None]:
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


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, private: bool = False, durable: bool = True) -> Generator[BinaryIO]:
    """Write a file aside and rename it into place when the block ends well; else the old one stays whole.

    Every writer has an unfinished file of its own, `NAME.RANDOM.part`: of several processes the last one to finish
    wins. What a killed process left is taken away by a writer of the same file a day later.

    Args:
        path: the file; its folder is made when missing.
        private: readable by its owner alone (mode 0600), else as the umask says.
        durable: the file and its name are on the disk when the block has ended; False, where many small files are
            written that can be made again, leaves the time to the system.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{secrets.token_hex(6)}{PART}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, _NEW, 0o600 if private else 0o666), "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(target)
        if durable:
            sync_folder(target.parent)
            _sweep(target)
    except OSError as error:
        why = error.strerror or str(error)
        raise DataError(f"{target}: cannot write ({why}); the previous file, if any, is untouched") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes, *, private: bool = False, durable: bool = True) -> None:
    """Write `data` by `atomic_file`.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    with atomic_file(path, private=private, durable=durable) as file:
        file.write(data)


def take_default_mode(path: str | os.PathLike[str]) -> None:
    """Give a file that a library wrote, MindSpore's read-only ones say, the mode that the umask gives to ours."""
    target = Path(path)
    probe = target.with_name(f"{target.name}.{secrets.token_hex(6)}{PART}")
    handle = os.open(probe, _NEW, 0o666)
    try:
        target.chmod(stat.S_IMODE(os.fstat(handle).st_mode))
    finally:
        os.close(handle)
        probe.unlink()


def _sweep(target: Path) -> None:
    """Take away unfinished files of `target` that no living writer can mean."""
    with suppress(OSError):
        for entry in os.scandir(target.parent):
            own = entry.name.startswith(target.name + ".") and entry.name.endswith(PART)
            if own and time.time() - entry.stat().st_mtime > _STALE_SECONDS:
                os.unlink(entry.path)


def read_at(handle: int, offset: int, count: int) -> bytes:
    """Up to `count` bytes of an open file from `offset` on, fewer at its end; threads may read at once."""
    if hasattr(os, "pread"):
        return os.pread(handle, count, offset)
    with _SEEKING:  # Windows has one position for all
        os.lseek(handle, offset, os.SEEK_SET)
        return os.read(handle, count)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder durable, where the system can (POSIX)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
