"""The file a gallery is exported to: an .npz of plain arrays, written and read in pieces, whatever its size.

For each table an array a column, KEY = TABLE.COLUMN: whole numbers int64, real numbers float64 (NaN where there is
none), vectors float32 (n, D), and bytes or UTF-8 one after the other as uint8 with their lengths in KEY.length (-1
where there is none). `about` is JSON: format, model, and the gallery's default retention. Format 1 held subjects and
samples without crops, sources and times; it is read too.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from visavis.errors import DataError
from visavis.files import atomic_file, is_reserved

FORMAT = 2
KINDS = {
    "subjects": {
        "id": "int", "name": "text", "consent": "text", "created": "float", "expires": "float",
    },
    "samples": {
        "id": "int", "subject": "int", "template": "int", "vector": "vector", "weight": "float", "quality": "float",
        "picture": "bytes", "source": "bytes", "source_name": "text", "created": "float", "crop": "bytes",
    },
    "unknown_faces": {
        "id": "int", "vector": "vector", "quality": "float", "picture": "bytes", "source": "bytes",
        "source_name": "text", "created": "float", "crop": "bytes",
    },
}  # fmt: skip
_TYPES = {"int": np.dtype("<i8"), "float": np.dtype("<f8"), "vector": np.dtype("<f4")}
_BATCH = 1000
_LONGEST = 1 << 28  # bytes of one crop or text; what says more is damaged
Values = Callable[[str, str], Iterable[Any]]


def write_export(
    path: str | os.PathLike[str], about: dict[str, Any], counts: dict[str, int], values: Values, *, dim: int
) -> None:
    """Write a file; `values(table, column)` gives a column's values in order and is called up to twice for each."""
    if is_reserved(path):
        raise DataError(f"{os.fspath(path)}: the gallery itself; name another file to write the export to")
    with atomic_file(path, private=True) as file, zipfile.ZipFile(file, "w") as archive:
        _write(archive, "about", np.dtype(f"<U{len(json.dumps(about))}"), (), [np.array(json.dumps(about)).tobytes()])
        for table, kinds in KINDS.items():
            for column, kind in kinds.items():
                key, n = f"{table}.{column}", counts[table]
                if kind in _TYPES:
                    shape = (n, dim) if kind == "vector" else (n,)
                    _write(archive, key, _TYPES[kind], shape, _packed(values(table, column), kind))
                else:
                    lengths = [-1 if v is None else len(v) for v in _raw(values(table, column))]
                    _write(archive, f"{key}.length", _TYPES["int"], (n,), [np.array(lengths, "<i8").tobytes()])
                    total = sum(length for length in lengths if length > 0)
                    pieces = (value for value in _raw(values(table, column)) if value)
                    _write(archive, key, np.dtype("u1"), (total,), pieces)


def _raw(values: Iterable[Any]) -> Iterator[bytes | None]:
    return (value.encode() if isinstance(value, str) else value for value in values)


def _packed(values: Iterable[Any], kind: str) -> Iterator[bytes]:
    for value in values:
        yield value if kind == "vector" else np.array(np.nan if value is None else value, _TYPES[kind]).tobytes()


def _write(archive: zipfile.ZipFile, key: str, dtype: np.dtype, shape: Sequence[int], pieces: Iterable[bytes]) -> None:
    expected, written = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 0
    with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(member, header)
        block = io.BytesIO()
        for piece in pieces:
            block.write(piece)
            written += len(piece)
            if block.tell() > 1 << 20:
                member.write(block.getvalue())
                block = io.BytesIO()
        member.write(block.getvalue())
    if written != expected:
        raise DataError(f"{key}: {written} bytes came where {expected} were announced; the gallery is damaged")


@final
class ExportFile:
    """An export open for reading.

    Raises:
        DataError: not one, damaged, or of a later format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._first: dict[str, Any] | None = None
        if is_reserved(self.path):
            raise DataError(f"{self.path}: the gallery itself, not an export of one")
        with self._explained():
            self._archive = zipfile.ZipFile(self.path)
            names = {name.removesuffix(".npy") for name in self._archive.namelist()}
            if "about" not in names:
                raise ValueError("it says nothing about itself")
            said = self._whole("about")
            self.about: dict[str, Any] = json.loads(str(said))
            version = self.about.get("format")
            if version == 1:
                self._first = _first_format({name: self._whole(name) for name in names})
            elif version != FORMAT:
                raise DataError(f"{self.path}: a gallery export of format {version}, this program reads {FORMAT}")

    def rows(self, table: str, *, dim: int) -> Iterator[dict[str, Any]]:
        """The rows of a table in order, each as column: value."""
        with self._explained():
            if self._first is not None:
                yield from self._first[table]
                return
            columns = {column: self._column(f"{table}.{column}", kind, dim) for column, kind in KINDS[table].items()}
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))

    def close(self) -> None:
        """Let go of the file."""
        self._archive.close()

    def _explained(self) -> Any:
        return _Explained(self.path)

    def _whole(self, key: str) -> Any:
        with self._archive.open(f"{key}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def _column(self, key: str, kind: str, dim: int) -> Iterator[Any]:
        if kind not in _TYPES:
            yield from self._texts(key, text=kind == "text")
            return
        width = dim if kind == "vector" else 1
        with self._archive.open(f"{key}.npy") as member:
            n = _header(member, _TYPES[kind], width if kind == "vector" else None)
            for start in range(0, n, _BATCH):
                count = min(_BATCH, n - start)
                values = np.frombuffer(_exactly(member, count * width * _TYPES[kind].itemsize), _TYPES[kind])
                if kind == "vector":
                    yield from values.reshape(count, width)
                elif kind == "float":
                    yield from (None if np.isnan(v) else float(v) for v in values)
                else:
                    yield from values.tolist()

    def _texts(self, key: str, *, text: bool) -> Iterator[Any]:
        with self._archive.open(f"{key}.npy") as member:
            _header(member, np.dtype("u1"), None)
            for length in self._column(f"{key}.length", "int", 1):
                if not -1 <= length <= _LONGEST:
                    raise ValueError(f"{key} has a length of {length}")
                raw = None if length < 0 else _exactly(member, length)
                yield raw.decode() if text and raw is not None else raw


class _Explained:
    """Says in the user's words what is wrong with a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{self._path}: no such file") from error
        if isinstance(error, OSError | ValueError | KeyError | EOFError | zipfile.BadZipFile | NotImplementedError):
            raise DataError(
                f"{self._path}: expected a gallery export (.npz), got one that is damaged or something else: {error}"
            ) from error


def _header(member: IO[bytes], dtype: np.dtype, width: int | None) -> int:
    version = np.lib.format.read_magic(member)  # pyright: ignore[reportArgumentType]
    if version != (1, 0):
        raise ValueError(f"an array of format {version}")
    shape, fortran, found = np.lib.format.read_array_header_1_0(member)  # pyright: ignore[reportArgumentType]
    wanted = (shape[0], width) if width is not None and shape else shape[:1]
    if fortran or found != dtype or shape != wanted or not shape:
        raise ValueError(f"an array {shape} of {found} where {dtype} was expected")
    return int(shape[0])


def _exactly(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    if len(data) != size:
        raise EOFError("it ends early")
    return data


def _first_format(values: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Format 1 as rows of the present one; it was read whole."""
    subjects = [
        {"id": i, "name": str(name), "consent": str(note), "created": float(created), "expires": float(end)}
        for i, (name, note, created, end) in enumerate(
            zip(values["names"], values["consent"], values["created"], values["expires"], strict=True), 1
        )
    ]
    for subject in subjects:
        subject["expires"] = subject["expires"] if np.isfinite(subject["expires"]) else None
    order = np.argsort(values["subject"], kind="stable")
    rest = dict.fromkeys(("quality", "picture", "source", "source_name", "created", "crop"))
    samples = [
        {
            "id": number, "subject": int(values["subject"][i]) + 1, "template": 0,
            "vector": values["vectors"][i].astype("<f4"), "weight": float(values["weights"][i]), **rest,
        }
        for number, i in enumerate(order, 1)
    ]  # fmt: skip
    return {"subjects": subjects, "samples": samples, "unknown_faces": []}
