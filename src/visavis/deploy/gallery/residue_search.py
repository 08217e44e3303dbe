"""Searching files for byte strings, in a process of its own: python residue_search.py FILE... <pieces >found.

POSIX gives up all locks a process holds on a file as soon as it closes any descriptor of that file ("How To Corrupt An
SQLite Database File", 2.2). So a process that has a gallery open never opens its files beside SQLite; this one does,
and holds no gallery. It reads in blocks: a file that others shorten meanwhile ends early, a mapped one would end the
process.

On standard input one piece a line in base64; on standard output one JSON object: for each file that could be read its
device, inode and bytes read, and the numbers of the pieces found. It imports nothing but the standard library.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_BLOCK = 1 << 23


def search_file(path: str, pieces: Sequence[bytes]) -> tuple[dict[str, Any], set[int]]:
    """What was read of a file, and which of the pieces it holds."""
    overlap = max((len(piece) for piece in pieces), default=1) - 1
    found: set[int] = set()
    read = 0
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        with suppress(OSError):  # SQLite shortens its log without it: a power cut would bring back what was there
            os.fsync(file.fileno())
        rest = b""
        while block := file.read(_BLOCK):
            read += len(block)
            data = rest + block
            found |= {i for i, piece in enumerate(pieces) if i not in found and data.find(piece) >= 0}
            rest = data[-overlap:] if overlap else b""
    return {"path": path, "device": status.st_dev, "inode": status.st_ino, "bytes": read}, found


def main() -> None:
    """Search the files named on the command line; one that is not there any more is passed over."""
    pieces = [base64.b64decode(line) for line in sys.stdin.buffer.read().split()]
    files, found = [], set()
    for path in sys.argv[1:]:
        try:
            file, there = search_file(path, pieces)
        except FileNotFoundError:
            continue
        files.append(file)
        found |= there
    json.dump({"files": files, "found": sorted(found)}, sys.stdout)


if __name__ == "__main__":
    main()
