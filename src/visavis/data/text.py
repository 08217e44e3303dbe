"""Text lists: lines with their numbers, errors with path and line, and the order a person expects."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from visavis.errors import DataError

_DIGITS = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[tuple[tuple[str, int], ...], str]:
    """Sort key under which `a2` comes before `a10`; equal keys only for equal names."""
    parts = _DIGITS.split(name)
    key = tuple((part, 0) if i % 2 == 0 else ("", int(part[-4000:])) for i, part in enumerate(parts))
    return key, name


def read_lines(path: str | os.PathLike[str], *, max_bytes: int = 1 << 30) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, each with its number from 1; line ends are removed.

    Raises:
        DataError: the file cannot be read, is larger than `max_bytes` or is not UTF-8 text.
    """
    path = Path(path)
    try:
        if path.stat().st_size > max_bytes:
            raise DataError(f"{path}: a list of more than {max_bytes:,} bytes is refused")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the list ({error.strerror})") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"  # lists made on Windows; reference-systems row A16
    else:
        encoding = "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        where = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {where}: expected UTF-8 text, got byte {data[error.start]:#04x}") from error
    if "\0" in text:
        raise DataError(f"{path}: expected a text list, got a binary file (a zero byte)")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def bad_line(path: str | os.PathLike[str], number: int, expected: str, line: str) -> DataError:
    """The error for a line that is not what it should be."""
    shown = line if len(line) <= 80 else line[:77] + "..."
    return DataError(f"{os.fspath(path)}, line {number}: expected {expected}, got {shown!r}")


def relative(path: str, number: int, name: str) -> str:
    """A listed picture's name with forward slashes; one that leaves the picture folder is refused.

    An absolute path below the list's own folder, or below `images/` in it, is taken from there on.
    """
    name = name.replace("\\", "/").removeprefix("./")
    if name.startswith("/"):
        folder = os.path.dirname(os.path.abspath(path)).replace(os.sep, "/")
        for root in (f"{folder}/images/", f"{folder}/"):
            name = name.removeprefix(root)
    if name.startswith("/") or ".." in name.split("/"):
        raise bad_line(path, number, "a path inside the picture folder", name)
    return name


def listable(names: Iterable[str], what: str) -> None:
    """Refuse names that no line of a list can hold, before anything is written.

    Raises:
        DataError: a name holds a TAB or a line break, or bytes that are no text; says how many, and the first.
    """
    bad = [
        name for name in names if any(c in name for c in "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029") or not _is_text(name)
    ]
    if bad:
        raise DataError(
            f"{len(bad)} names cannot stand in {what}: they hold a TAB, a line break or bytes that are no text; "
            f"first {bad[0]!r}; rename the file or folder"
        )


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
