"""Tables of whole numbers in text (IJB's 15.7 million comparisons), checked, read fast and kept in binary."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ProtocolError
from visavis.files import atomic_file

_BLOCK = 1 << 18  # bytes of text at a time
_LONGEST_LINE = 1 << 16
_LARGEST = 2**31 - 1


def read_integers(
    path: str | os.PathLike[str], *, columns: int, cache: str | os.PathLike[str] | None = None
) -> npt.NDArray[np.int32]:
    """Read a text of `columns` unsigned whole numbers a line, separated by blanks or TABs, as int32 (columns, N).

    Args:
        path: the list.
        columns: numbers in each line.
        cache: folder for the binary copy, found again by the list's path, size and time; None keeps none.

    Raises:
        ProtocolError: a line does not hold `columns` such numbers; says which line.
        DataError: the file cannot be read.
    """
    path = Path(path)
    kept = _cache_file(path, columns, cache) if cache is not None else None
    if kept is not None and (known := _load(kept, columns)) is not None:
        return known
    table = _parse(path, columns)
    if kept is not None:
        _save(kept, table)
    return table


def _parse(path: Path, columns: int) -> npt.NDArray[np.int32]:
    try:
        size = path.stat().st_size
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot read the list ({error.strerror})") from error
    with file:
        table = np.empty((columns, max(1, size // (2 * columns) + 1)), np.int32)  # pages unused are never touched
        rows, done, rest = 0, 0, b""
        while True:
            block = file.read(_BLOCK)
            text = rest + block
            if block:
                cut = text.rfind(b"\n") + 1
                text, rest = text[:cut], text[cut:]
                if len(rest) > _LONGEST_LINE:
                    raise ProtocolError(
                        f"{path}: expected lines of {columns} numbers, got a line of over {_LONGEST_LINE:,} bytes"
                    )
            if text:
                values = _numbers(text, columns)
                if values is None:
                    raise ProtocolError(_first_bad_line(path, text, columns, done))
                table[:, rows : rows + len(values)] = values.T
                rows += len(values)
                done += len(text)
            if not block:
                break
    if not rows:
        raise ProtocolError(f"{path}: expected lines of {columns} whole numbers, got an empty list")
    return table[:, :rows]


def _numbers(text: bytes, columns: int) -> npt.NDArray[np.int64] | None:
    """The numbers (rows, columns) of whole lines; None when any line is not `columns` plain numbers.

    The bytes are checked first, since NumPy's parser would take signs and fractions and cross the ends of lines.
    """
    text = text if text.endswith(b"\n") else text + b"\n"
    raw = np.frombuffer(text, np.uint8)
    blank = raw <= 32
    if np.any((raw - np.uint8(48) > 9) & ~blank):
        return None
    last = np.flatnonzero(blank[1:] & ~blank[:-1])  # the last byte of each number
    if not len(last):
        return np.empty((0, columns), np.int64)
    if len(last) % columns or not _whole_lines(raw, last, columns):
        return None
    try:
        values = np.fromstring(text, np.int64, sep=" ")
    except ValueError:  # control characters that are no blanks
        return None
    return values.reshape(-1, columns) if len(values) == len(last) and values.max() <= _LARGEST else None


def _whole_lines(raw: npt.NDArray[np.uint8], last: npt.NDArray[np.int64], columns: int) -> bool:
    """Whether every line that is not empty holds `columns` numbers, which end at the bytes `last`."""
    if np.all(raw[last[columns - 1 :: columns] + 1] == 10):  # the usual list: no blanks before the line's end
        lines = int(np.count_nonzero(raw == 10))
        if lines == len(last) // columns:
            return True
    ends = np.flatnonzero(raw == 10)
    words = np.diff(np.append(0, np.searchsorted(last, ends)))
    return bool(np.all((words == columns) | (words == 0)))


def _first_bad_line(path: Path, text: bytes, columns: int, done: int) -> str:
    """Name the line of `text`, which begins at byte `done` of the list, that is wrong."""
    with path.open("rb") as file:
        lines = file.read(done).count(b"\n")
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and (len(words) != columns or not all(w.isdigit() and int(w) <= _LARGEST for w in words)):
            shown = line[:60].decode("utf-8", "replace")
            return f"{path}, line {lines + number}: expected {columns} whole numbers, got {shown!r}"
    return f"{path}: expected {columns} whole numbers a line"


def _cache_file(path: Path, columns: int, folder: str | os.PathLike[str]) -> Path:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot read the list ({error.strerror})") from error
    said = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{columns}"
    return Path(folder) / f"list-{hashlib.blake2b(said.encode(), digest_size=12).hexdigest()}.npy"


def _load(path: Path, columns: int) -> npt.NDArray[np.int32] | None:
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return table if table.dtype == np.int32 and table.ndim == 2 and len(table) == columns else None


def _save(path: Path, table: npt.NDArray[np.int32]) -> None:
    """Keep the binary copy; a folder that cannot be written only costs the time to parse again."""
    with suppress(DataError), atomic_file(path, durable=False) as file:
        np.save(file, table)
