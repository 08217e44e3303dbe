"""The templates of a gallery in a file beside it, so that opening need not compute them from a million samples.

GALLERY-vectors says what is there: a header, then subject, end (time) and row checksums; GALLERY-vectors.RANDOM holds the
rows, float32, behind a header page. Rows are appended, and overwritten with zeros when their subject is erased or has
changed; neither file is ever shortened, so that one process may map what another changes. Both are derived: whatever is
wrong with them, they are made anew. An encrypted gallery has none.
"""

from __future__ import annotations

import json
import os
import secrets
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, final

import numpy as np
import numpy.typing as npt

from visavis.files import atomic_file, lock_file, open_private

BLOCK = 1024  # rows that share a checksum
_PAGE = 4096
_FORMAT = 1
Templates = Iterable[tuple[Sequence[int], npt.NDArray[np.float32], Sequence[float]]]


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
        try:
            raw = self.path.read_bytes()
            header = Header(**json.loads(raw[:_PAGE].rstrip(b"\0")))
            body = raw[_PAGE:]
            blocks = -(-header.rows // BLOCK)
            whole = len(body) == 16 * header.rows + 4 * blocks and zlib.crc32(body) == header.checksum
            mine = (header.token, header.gallery, header.dim, header.format) == (
                token, self._gallery, self._dim, _FORMAT,
            )  # fmt: skip
            if not whole or not mine or self._data(header).stat().st_size < _PAGE + 4 * header.rows * header.dim:
                return None
        except (OSError, ValueError, TypeError):
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
        """Whether the rows of a block are as they were written."""
        with self._data(contents.header).open("rb") as file:
            return self._sum(file, contents.header, block) == contents.blocks[block]

    def write(self, templates: Templates, *, generation: int) -> Writer:
        """A writer of a new file; `templates` may be empty and rows added to it later."""
        writer = Writer(self, f"{self.path.name}.{secrets.token_hex(4)}", generation)
        for ids, vectors, expires in templates:
            writer.add(ids, vectors, expires)
        return writer

    def change(self, token: str, stale: Iterable[int], fresh: Templates, *, generation: int) -> str | None:
        """Erase the rows of the subjects `stale` and append others; the new token, or None where that is not the file."""
        with lock_file(self.path.with_name(self.path.name + ".lock")):
            contents = self.read(token)
            if contents is None:
                return None
            with self._data(contents.header).open("r+b") as file:
                contents = self._zeroed(file, contents, stale)[0]
                added = [(np.asarray(ids, np.int64), vectors, np.asarray(ends, float)) for ids, vectors, ends in fresh]
                rows = contents.header.rows
                file.seek(_PAGE + 4 * self._dim * rows)
                for _, vectors, _ in added:
                    file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
                ids = np.concatenate([contents.ids, *(one[0] for one in added)])
                most = max(contents.header.templates, *(most_templates(one[0]) for one in added), 1)
                header = replace(
                    contents.header, token=secrets.token_hex(8), generation=generation, rows=len(ids), templates=most
                )
                ends = np.concatenate([contents.expires, *(one[2] for one in added)])
                file.flush()
                sums = [self._sum(file, header, block) for block in range(rows // BLOCK, -(-len(ids) // BLOCK))]
                blocks = np.concatenate([contents.blocks[: rows // BLOCK], np.array(sums, np.uint32)])
                os.fsync(file.fileno())
            self.put(Contents(header, ids, ends, blocks))
            return header.token

    def erase(self, token: str, subjects: Iterable[int]) -> list[bytes]:
        """Overwrite the rows of subjects with zeros; returns them as they were."""
        with lock_file(self.path.with_name(self.path.name + ".lock")):
            contents = self.read(token)
            if contents is None:
                self.remove()
                return []
            with self._data(contents.header).open("r+b") as file:
                contents, erased = self._zeroed(file, contents, subjects)
                os.fsync(file.fileno())
            self.put(contents)
            return erased

    def remove(self) -> None:
        """Take all files away, their rows overwritten first: somebody who was erased may be among them."""
        for path in self.files():
            with suppress(OSError):
                with path.open("r+b") as file:
                    left = path.stat().st_size
                    while left > 0:
                        left -= file.write(bytes(min(left, 1 << 22)))
                    os.fsync(file.fileno())
                path.unlink()

    def files(self) -> list[Path]:
        """Every file there is."""
        return sorted(p for p in self.path.parent.glob(self.path.name + "*") if not p.name.endswith(".lock"))

    def put(self, contents: Contents) -> None:
        """Write what says what is there, in one step."""
        body = b"".join(np.ascontiguousarray(a).tobytes() for a in (contents.ids, contents.expires, contents.blocks))
        said = json.dumps(asdict(replace(contents.header, checksum=zlib.crc32(body)))).encode()
        with atomic_file(self.path, private=True) as file:
            file.write(said.ljust(_PAGE, b"\0") + body)

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

    def start(self, name: str, generation: int) -> Header:
        """The header of a new file."""
        return Header(self._gallery, self._dim, secrets.token_hex(8), name, generation, 0, 1)

    def finish(self, contents: Contents) -> str:
        """Put a new file in the place of the former; its token."""
        with lock_file(self.path.with_name(self.path.name + ".lock")):
            former = [path for path in self.files() if path.name not in (contents.header.data, self.path.name)]
            self.put(contents)
            for path in former:
                with suppress(OSError):
                    path.unlink()
        return contents.header.token


@final
class Writer:
    """Writes a new file batch by batch; nothing of it counts before `finish`."""

    def __init__(self, owner: VectorFile, name: str, generation: int) -> None:
        self._owner, self._header = owner, owner.start(name, generation)
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
        self._rest += data
        size = 4 * self._header.dim * BLOCK
        while len(self._rest) >= size:
            self._blocks.append(zlib.crc32(self._rest[:size]))
            self._rest = self._rest[size:]

    def finish(self) -> str:
        """Make it the gallery's; returns the token the gallery must name."""
        if self._rest:
            self._blocks.append(zlib.crc32(self._rest))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        ids = np.concatenate([np.empty(0, np.int64), *self._ids])
        expires = np.concatenate([np.empty(0, float), *self._expires])
        header = replace(self._header, rows=len(ids), templates=self._most)
        return self._owner.finish(Contents(header, ids, expires, np.array(self._blocks, np.uint32)))

    def give_up(self) -> None:
        """Take away what was written."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def most_templates(ids: npt.NDArray[np.int64]) -> int:
    """The most rows in a row that are one subject's."""
    if not len(ids):
        return 1
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 1))
    return int(np.diff(np.append(starts, len(ids))).max())
