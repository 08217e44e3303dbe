"""MXNet's RecordIO, the bytes: records in a .rec, their offsets in an .idx, without MXNet.

A record is `magic 0xced7230a, u32 cflag << 29 | length, payload, zeros up to a multiple of 4`. A payload that holds the
magic at a multiple of 4 is cut there into parts (cflag 1 first, 2 middle, 3 last; 0 whole) and the magic is left out.
An image record's payload is `u32 flag, f32 label, u64 id, u64 id2`, then `flag` labels as f32, then the picture.
Source: dmlc-core recordio.h and mxnet/recordio.py (IRHeader), as documented by both projects.
"""

from __future__ import annotations

import mmap
import os
import struct
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.files import read_at

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_ADVICE = "; --skip-damaged leaves such records out"
_LENGTH_MASK = (1 << 29) - 1
_HEADER = struct.Struct("<IfQQ")
_SPAN = 1 << 14  # bytes read of a record whose length is not known; most hold a crop of 10 KB
_MOST = 1 << 20  # an index that skips records may claim any length
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """One image record: its labels (at least one), ids and the picture's bytes (empty in index records)."""

    labels: tuple[float, ...]
    id: int
    id2: int
    data: bytes
    flag: int


def pack(data: bytes, labels: float | tuple[float, ...], *, id: int = 0, id2: int = 0) -> bytes:
    """The payload of an image record; several labels go behind the header, as MXNet's `pack` does."""
    if isinstance(labels, tuple):
        return _HEADER.pack(len(labels), 0.0, id, id2) + np.asarray(labels, "<f4").tobytes() + data
    return _HEADER.pack(0, labels, id, id2) + data


def unpack(payload: bytes, *, name: str = "record") -> Record:
    """Split an image record's payload into header and picture.

    Raises:
        DataError: the payload is shorter than its header says.
    """
    if len(payload) < _HEADER.size:
        raise DataError(f"{name}: expected a header of {_HEADER.size} bytes, got {len(payload)}")
    flag, label, id_, id2 = _HEADER.unpack_from(payload)
    end = _HEADER.size + 4 * flag
    if end > len(payload):
        raise DataError(f"{name}: the header promises {flag} labels, the record has {len(payload)} bytes")
    labels = tuple(np.frombuffer(payload, "<f4", flag, _HEADER.size).tolist()) if flag else (label,)
    return Record(labels, id_, id2, payload[end:], flag)


class RecordFile:
    """Random access to the records of a .rec; pickles as its path, so workers open their own.

    Records are read by offset and length (pread): a page fault of a memory map keeps the interpreter's lock while the
    disk works, and brings 128 KB. What looks at many headers at once goes through the map, as `words`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            weakref.finalize(self, os.close, self._handle)
            self.size = os.fstat(self._handle).st_size
            if self.size < 8:
                raise DataError(f"{self.path}: expected RecordIO, got a file of {self.size} bytes")
            self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{self.path}: cannot open the record file ({error.strerror})") from error
        # Records start at multiples of 4, so headers of many records can be gathered as 32-bit words at once.
        self.words = np.frombuffer(self._map, "<u4", self.size // 4)

    def __reduce__(self) -> tuple[type[RecordFile], tuple[Path]]:
        return RecordFile, (self.path,)

    def _fault(self, offset: int, problem: str) -> DataError:
        return DataError(f"{self.path}: damaged at byte {offset:,}: {problem}{_ADVICE}")

    def _part(self, offset: int) -> tuple[int, int]:
        """The cflag and length of the part at `offset`, checked against the end of the file."""
        if offset < 0 or offset % 4 or offset + 8 > self.size:
            raise self._fault(offset, f"no record can start here (the file has {self.size:,} bytes)")
        return self._head(self.words[offset // 4 : offset // 4 + 2].tobytes(), offset)

    def _head(self, head: bytes, offset: int) -> tuple[int, int]:
        """The cflag and length that a part's 8 bytes state."""
        if len(head) < 8:
            raise self._fault(offset, f"no record can start here (the file has {self.size:,} bytes)")
        magic, word = struct.unpack("<II", head)
        if magic != MAGIC:
            raise self._fault(offset, f"expected the magic 0x{MAGIC:08x}, got 0x{magic:08x}")
        length = word & _LENGTH_MASK
        if offset + 8 + length > self.size:
            raise self._fault(offset, f"a record of {length:,} bytes runs past the end ({self.size:,} bytes)")
        return word >> 29, length

    def read(self, offset: int, *, span: int = _SPAN) -> bytes:
        """The payload of the record at a byte offset, its parts joined; `span` bytes are asked for at first.

        Raises:
            DataError: no record starts there or it is cut off; the message has the offset.
        """
        if offset < 0 or offset % 4 or offset + 8 > self.size:
            raise self._fault(offset, f"no record can start here (the file has {self.size:,} bytes)")
        window = self._bytes(offset, max(8, min(span, _MOST)))
        parts: list[bytes] = []
        at = 0  # in the window
        while True:
            if at + 8 > len(window):
                window += self._bytes(offset + len(window), at + 8 - len(window))
            flag, length = self._head(window[at : at + 8], offset + at)
            if not parts and flag > 1:
                raise self._fault(offset, f"a record begins with part {flag} of another")
            if parts and flag not in (2, 3):
                raise self._fault(offset + at, f"expected the next part of a record, got part {flag}")
            end = at + 8 + length
            if end > len(window):
                window += self._bytes(offset + len(window), end - len(window))
            parts.append(window[at + 8 : end])
            if flag in (0, 3):
                return _MAGIC_BYTES.join(parts)
            at = end + -length % 4

    def _bytes(self, offset: int, count: int) -> bytes:
        """The file's bytes from `offset` on, up to its end as it was when it was opened."""
        wanted = max(0, min(count, self.size - offset))
        try:
            data = read_at(self._handle, offset, wanted)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read at byte {offset:,} ({error.strerror})") from error
        if len(data) < wanted:
            raise DataError(f"{self.path}: was shortened while it was read: nothing at byte {offset + len(data):,}")
        return data

    def end_of(self, offset: int) -> int:
        """The offset behind the record at `offset`."""
        while True:
            flag, length = self._part(offset)
            offset += 8 + (length + 3) // 4 * 4
            if flag in (0, 3):
                return offset

    def scan(self, *, skip_damaged: bool = False) -> tuple[Offsets, list[tuple[int, str]]]:
        """Walk the file: the offset of every record, and (offset, problem) of what was damaged.

        Raises:
            DataError: a damaged record, unless `skip_damaged`; then the walk goes on at the next magic.
        """
        offsets: list[int] = []
        damaged: list[tuple[int, str]] = []
        position = 0
        while position + 8 <= self.size:
            try:
                flag, _ = self._part(position)
                if flag > 1:
                    raise self._fault(position, f"a record begins with part {flag} of another")
                following = self.end_of(position)
                offsets.append(position)
                position = following
            except DataError as error:
                if not skip_damaged:
                    raise
                said = str(error).removeprefix(f"{self.path}: damaged at byte {position:,}: ")
                damaged.append((position, said.removesuffix(_ADVICE)))
                position = self._next_magic(position + 4)
        if self.size - position > 0 and not damaged:
            if not skip_damaged:
                raise self._fault(position, f"{self.size - position} bytes are left over, too few for a record")
            damaged.append((position, "left over"))
        return np.array(offsets, np.int64), damaged

    def _next_magic(self, position: int) -> int:
        while (position := self._map.find(_MAGIC_BYTES, position)) >= 0:
            if position % 4 == 0:
                return position
            position += 1
        return self.size


def read_index(path: str | os.PathLike[str]) -> tuple[Offsets, Offsets]:
    """Read an .idx: keys and byte offsets, one `key TAB offset` a line.

    Raises:
        DataError: not such a file; the message has the line.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the index ({error.strerror})") from error
    if not data.strip():
        raise DataError(f"{path}: expected `key TAB byte-offset` lines, got an empty file")
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if not data.translate(None, b"0123456789\t\r\n "):  # only then is NumPy's quick parser safe
        table = np.fromstring(data.decode("ascii"), np.int64, sep=" ")
        if len(table) == 2 * lines and table.max() < np.iinfo(np.int64).max:
            return table[::2].copy(), table[1::2].copy()
    for number, line in enumerate(data.split(b"\n"), 1):
        parts = line.split()
        if line.strip() and not (len(parts) == 2 and all(p.isdigit() and len(p) < 19 for p in parts)):
            raise DataError(f"{path}, line {number}: expected `key TAB byte-offset`, got {line[:60]!r}")
    table = np.array([[int(f) for f in line.split()] for line in data.split(b"\n") if line.strip()], np.int64)
    return table[:, 0], table[:, 1]


class RecordWriter:
    """Appends records to a .rec and `key TAB offset` lines to its .idx."""

    def __init__(self, record: BinaryIO, index: BinaryIO) -> None:
        self._record, self._index = record, index
        self.offset = record.tell()

    def write(self, key: int, payload: bytes) -> None:
        """Append one record.

        Raises:
            DataError: a part of the payload exceeds the format's 2²⁹ − 1 bytes.
        """
        parts = _split_at_magic(payload)
        blob = bytearray()
        for i, part in enumerate(parts):
            if len(part) > _LENGTH_MASK:
                raise DataError(f"a RecordIO part holds at most {_LENGTH_MASK:,} bytes, got {len(part):,}")
            flag = 0 if len(parts) == 1 else 1 if i == 0 else 3 if i == len(parts) - 1 else 2
            blob += struct.pack("<II", MAGIC, flag << 29 | len(part)) + part
        blob += bytes(-len(blob) % 4)
        self._record.write(blob)
        self._index.write(b"%d\t%d\n" % (key, self.offset))
        self.offset += len(blob)


def _split_at_magic(payload: bytes) -> list[bytes]:
    parts: list[bytes] = []
    start = position = 0
    while (position := payload.find(_MAGIC_BYTES, position)) >= 0:
        if position % 4 == 0 and position + 4 <= len(payload) // 4 * 4:
            parts.append(payload[start:position])
            start = position = position + 4
        else:
            position += 1
    return [*parts, payload[start:]]
