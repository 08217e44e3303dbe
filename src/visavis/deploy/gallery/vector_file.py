"""The templates of a gallery in a file beside it, so that opening need not compute them from a million samples.

GALLERY-vectors says what is there: a header, then subject and end (time) of every row and checksums of blocks;
GALLERY-vectors.RANDOM holds the rows, float32, behind a header page. Rows are appended, and overwritten with zeros when
their subject is erased or has changed; neither file is ever shortened, so that one process may map what another
changes. Both are derived: whatever is wrong with them, they are made anew. An encrypted gallery has none.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
import numpy.typing as npt

from visavis.files import atomic_file, lock_file, open_private

BLOCK = 1024  # rows that share a checksum
_PAGE = 4096
_FORMAT = 1
Templates = Iterable[tuple[Sequence[int], npt.NDArray[np.float32], Sequence[float]]]
Load = Callable[[int], tuple[int, Iterable[int], Templates]]  # from a generation: the present one, stale, fresh


@dataclass(frozen=True)
class Header:
    """What the file says of itself; the gallery names the `token` of the file that is its own."""

    gallery: str
    dim: int
    token: str
    data: str
    generation: int
    rows: int
    templates: int  # the most a subject has
    checksum: int = 0  # of what follows the header
    format: int = _FORMAT


@dataclass(frozen=True)
class Contents:
    """Rows by number: subject (0 where erased), end, and of every `BLOCK` of rows the CRC-32."""

    header: Header
    ids: npt.NDArray[np.int64]
    expires: npt.NDArray[np.float64]
    blocks: npt.NDArray[np.uint32]


@final
class VectorFile:
    """The file beside the gallery at `path`; methods that write hold its lock."""

    def __init__(self, path: Path, *, gallery: str, dim: int) -> None:
        self.path = path.with_name(path.name + "-vectors")
        self._gallery, self._dim = gallery, dim

    def read(self, token: str) -> Contents | None:
        """What is there, if it is the file of that token and whole."""
        contents = self._parse()
        return contents if contents is not None and contents.header.token == token else None

    def _parse(self, data: str | None = None) -> Contents | None:
        """What is there, if it is whole, of this gallery, and says where the rows of the file `data` are."""
        try:
            raw = self.path.read_bytes()
            header = Header(**json.loads(raw[:_PAGE].rstrip(b"\0")))
            body = raw[_PAGE:]
            blocks = -(-header.rows // BLOCK)
            mine = (header.gallery, header.dim, header.format) == (self._gallery, self._dim, _FORMAT)
            whole = len(body) == 16 * header.rows + 4 * blocks and zlib.crc32(body) == header.checksum
            large = self._data(header).stat().st_size >= _PAGE + 4 * header.rows * header.dim
        except (OSError, ValueError, TypeError):
            return None
        if not (mine and whole and large) or data not in (None, header.data):
            return None
        return Contents(
            header,
            np.frombuffer(body, np.int64, header.rows).copy(),
            np.frombuffer(body, np.float64, header.rows, 8 * header.rows).copy(),
            np.frombuffer(body, np.uint32, blocks, 16 * header.rows).copy(),
        )

    def map(self, contents: Contents) -> npt.NDArray[np.float32]:
        """The rows (N, D), mapped; what is written into them stays in this process."""
        header = contents.header
        shape = (header.rows, header.dim)
        return np.asarray(np.memmap(self._data(header), np.float32, mode="c", offset=_PAGE, shape=shape))

    def whole(self, contents: Contents, block: int) -> bool:
        """Whether the rows of a block are as they were written, or as somebody was erased from them since."""
        with self._data(contents.header).open("rb") as file:
            if self._sum(file, contents.header, block) == contents.blocks[block]:
                return True
            with self._lock():
                latest = self._parse(contents.header.data)
                return latest is not None and self._sum(file, latest.header, block) == latest.blocks[block]

    def write(self) -> Writer:
        """A writer of a new file."""
        return Writer(self, f"{self.path.name}.{secrets.token_hex(4)}")

    def change(self, token: str, load: Load) -> str | None:
        """Append what changed since the file was written; the new token, or None where that is not the file.

        `load(generation)` is called while the lock is held, so that nobody is erased between reading and writing.
        """
        with self._lock():
            contents = self.read(token)
            if contents is None:
                return None
            generation, stale, fresh = load(contents.header.generation)
            with self._data(contents.header).open("r+b") as file:
                contents = self._zeroed(file, contents, stale)[0]
                contents = self._appended(file, contents, fresh, generation)
                os.fsync(file.fileno())
            self._put(contents)
            return contents.header.token

    def erase(self, token: str, stale: Callable[[int], Iterable[int]]) -> list[bytes]:
        """Overwrite rows with zeros, those of the subjects `stale(generation)`; returns them as they were."""
        with self._lock():
            contents = self.read(token)
            if contents is None:
                self._wipe(self.files())
                return []
            with self._data(contents.header).open("r+b") as file:
                contents, erased = self._zeroed(file, contents, stale(contents.header.generation))
                os.fsync(file.fileno())
            self._put(contents)
            self._wipe([path for path in self.files() if path.name not in (self.path.name, contents.header.data)])
            return erased

    def remove(self) -> None:
        """Take all files away."""
        with self._lock():
            self._wipe(self.files())

    def files(self) -> list[Path]:
        """Every file there is, also those that others are writing."""
        return sorted(p for p in self.path.parent.glob(self.path.name + "*") if not p.name.endswith(".lock"))

    def finish(self, header: Header, ids: list[Any], expires: list[Any], blocks: list[int]) -> str | None:
        """Put a new file in the place of the former; its token, or None where it was taken away meanwhile."""
        contents = Contents(
            header, np.concatenate([np.empty(0, np.int64), *ids]), np.concatenate([np.empty(0, float), *expires]),
            np.array(blocks, np.uint32),
        )  # fmt: skip
        with self._lock():
            if not self._data(header).exists():
                return None
            self._put(contents)
            for path in self.files():  # a former file may still be mapped: its rows stay as they are
                if path.name not in (self.path.name, header.data):
                    with suppress(OSError):
                        path.unlink()
        return header.token

    def new_header(self, data: str) -> Header:
        """The header of a file that is begun."""
        return Header(self._gallery, self._dim, secrets.token_hex(8), data, 0, 0, 1)

    def _lock(self) -> Any:
        return lock_file(self.path.with_name(self.path.name + ".lock"))

    def _put(self, contents: Contents) -> None:
        """Write what says what is there, in one step."""
        body = b"".join(np.ascontiguousarray(a).tobytes() for a in (contents.ids, contents.expires, contents.blocks))
        said = json.dumps(asdict(replace(contents.header, checksum=zlib.crc32(body)))).encode()
        with atomic_file(self.path, private=True) as file:
            file.write(said.ljust(_PAGE, b"\0") + body)

    @staticmethod
    def _wipe(paths: Iterable[Path]) -> None:
        """Overwrite files and take them away: somebody who was erased may be in them."""
        for path in paths:
            with suppress(OSError):
                with path.open("r+b") as file:
                    left = path.stat().st_size
                    while left > 0:
                        left -= file.write(bytes(min(left, 1 << 22)))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()

    def _appended(self, file: BinaryIO, contents: Contents, fresh: Templates, generation: int) -> Contents:
        ids, ends, rows = [contents.ids], [contents.expires], contents.header.rows
        file.seek(_PAGE + 4 * self._dim * rows)
        most = contents.header.templates
        for subjects, vectors, expires in fresh:
            file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            ids.append(np.asarray(subjects, np.int64))
            ends.append(np.asarray(expires, float))
            most = max(most, most_templates(ids[-1]))
        file.flush()
        total = sum(map(len, ids))
        header = replace(contents.header, token=secrets.token_hex(8), generation=generation, rows=total, templates=most)
        first = rows // BLOCK
        sums = [self._sum(file, header, block) for block in range(first, -(-total // BLOCK))]
        blocks = np.concatenate([contents.blocks[:first], np.array(sums, np.uint32)])
        return Contents(header, np.concatenate(ids), np.concatenate(ends), blocks)

    def _zeroed(self, file: BinaryIO, contents: Contents, subjects: Iterable[int]) -> tuple[Contents, list[bytes]]:
        rows = np.flatnonzero(np.isin(contents.ids, np.fromiter(subjects, np.int64)) & (contents.ids != 0))
        size, erased = 4 * self._dim, []
        for row in rows.tolist():
            file.seek(_PAGE + row * size)
            erased.append(file.read(size))
            file.seek(_PAGE + row * size)
            file.write(bytes(size))
        file.flush()
        contents.ids[rows] = 0
        contents.expires[rows] = np.inf
        for block in np.unique(rows // BLOCK).tolist():
            contents.blocks[block] = self._sum(file, contents.header, block)
        return contents, erased

    def _sum(self, file: BinaryIO, header: Header, block: int) -> int:
        size = 4 * header.dim
        file.seek(_PAGE + block * BLOCK * size)
        return zlib.crc32(file.read((min(header.rows, (block + 1) * BLOCK) - block * BLOCK) * size))

    def _data(self, header: Header) -> Path:
        return self.path.with_name(Path(header.data).name)


@final
class Writer:
    """Writes a new file batch by batch; nothing of it counts before `finish`."""

    def __init__(self, owner: VectorFile, name: str) -> None:
        self._owner, self._header = owner, owner.new_header(name)
        self._path = owner.path.with_name(name)
        self._file = os.fdopen(open_private(self._path), "r+b")
        self._file.write(bytes(_PAGE))
        self._ids: list[npt.NDArray[np.int64]] = []
        self._expires: list[npt.NDArray[np.float64]] = []
        self._blocks: list[int] = []
        self._rest = b""
        self._most = 1

    def add(self, ids: Sequence[int], vectors: npt.NDArray[np.float32], expires: Sequence[float]) -> None:
        """Append rows (n, D) of subjects, all of a subject's together."""
        self._ids.append(np.asarray(ids, np.int64))
        self._expires.append(np.asarray(expires, float))
        self._most = max(self._most, most_templates(self._ids[-1]))
        data = np.ascontiguousarray(vectors, "<f4").tobytes()
        self._file.write(data)
        size, view, at = 4 * self._header.dim * BLOCK, memoryview(self._rest + data), 0
        while len(view) - at >= size:
            self._blocks.append(zlib.crc32(view[at : at + size]))
            at += size
        self._rest = bytes(view[at:])

    def finish(self, generation: int) -> str | None:
        """Make it the gallery's, as of a generation; the token the gallery must name, if nobody took the file away."""
        if self._rest:
            self._blocks.append(zlib.crc32(self._rest))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        rows = sum(map(len, self._ids))
        header = replace(self._header, rows=rows, templates=self._most, generation=generation)
        return self._owner.finish(header, self._ids, self._expires, self._blocks)

    def give_up(self) -> None:
        """Take away what was written."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def most_templates(ids: npt.NDArray[np.int64]) -> int:
    """The most rows in a row that are one subject's; (N,)."""
    if not len(ids):
        return 1
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
    return int(np.diff(np.append(starts, len(ids))).max())
