"""From any format of the field to any other: streaming, resumable, pictures copied byte for byte."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from visavis.data.pair_lists.base import check_pairs, write_pairs
from visavis.data.pair_lists.benchmarks import bin_pairs
from visavis.data.sources.base import Source
from visavis.data.sources.bin import BinSource, write_bin
from visavis.data.sources.lists import write_list
from visavis.data.sources.rec_writer import write_records
from visavis.errors import DataError, unknown_name
from visavis.files import write_atomically
from visavis.types import Pairs

Target = Literal["folder", "record", "bin", "list", "mass"]
_FOREIGN = frozenset(
    {".tfrecord", ".tfrecords", ".lmdb", ".parquet", ".tar", ".zip", ".h5", ".hdf5", ".npz", ".npy", ".pkl"}
)
_MAGIC = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


def target_of(path: Path, *, source: Path) -> Target:
    """Tell what to write from the path: .rec, .bin, a list (.txt, .csv), or a folder.

    A folder gets pictures, unless pictures come in one already: then it gets train.rec.

    Raises:
        DataError: the path names a file of a format that is not written.
    """
    suffix = path.suffix.lower()
    if suffix in (".rec", ".idx"):
        return "record"
    if suffix == ".bin":
        return "bin"
    if suffix in (".txt", ".csv"):
        return "list"
    if suffix in _FOREIGN and not path.is_dir():
        raise DataError(
            f"{path}: cannot write {suffix} files; DST is a folder, .rec, .bin, .txt or .csv (--to says which, "
            "whatever its name)"
        )
    return "record" if source.is_dir() and not any(source.glob("*.rec")) else "folder"


def convert(source: Source, target: Path, kind: Target, *, pairs: Pairs | None = None) -> Iterator[int]:
    """Write a source in another format; yields the number of pictures done.

    Args:
        source: what to convert.
        target: folder (`folder`, `mass`, `record`), or the .rec, .bin or list file.
        kind: `folder` per identity; `record`: .rec/.idx/.lst/property; `bin`: a verification set (needs `pairs`);
            `list`: `path TAB label` lines beside the pictures; `mass`: MassFace's folder per pair (row M1).
        pairs: comparisons; a `folder` gets them as pairs.txt, `bin` and `mass` are made of them.

    Raises:
        DataError: pairs are missing where they are needed, or name pictures the source has not.
    """
    if kind not in get_args(Target):
        raise DataError(unknown_name("kind to convert to", kind, get_args(Target)))
    if pairs is None and isinstance(source, BinSource):
        pairs = bin_pairs(source)
    writers: dict[str, Callable[[], Iterator[int]]] = {
        "folder": lambda: to_folder(source, target, pairs=pairs),
        "record": lambda: _to_record(source, target),
        "list": lambda: _to_list(source, target),
    }
    if kind in writers:
        return writers[kind]()
    if pairs is None:
        raise DataError(f"a {kind} set is made of pairs: name a pair list with --pairs FILE (SRC has no pairs.txt)")
    return _to_bin(source, target, pairs) if kind == "bin" else to_pair_folders(source, target, pairs)


def _to_record(source: Source, target: Path) -> Iterator[int]:
    return write_records(source, target.parent, stem=target.stem) if target.suffix else write_records(source, target)


def to_folder(source: Source, target: Path, *, pairs: Pairs | None = None) -> Iterator[int]:
    """Write a folder per identity under `target`/images, each picture's bytes as they are; see `convert`.

    A picture that is already there with its full length is not written again. An extension that contradicts the bytes
    (a .rec does not know its pictures' encoding) is corrected.
    """
    keep = _folders_are_identities(source)
    taken: dict[str, int] = {}
    for done, (index, name) in enumerate(zip(range(len(source)), source.names, strict=True), 1):
        data = source.read(index)
        identity = source.identities[int(source.labels[index])].replace("/", "_")
        relative = _named(name if keep else f"{identity}/{name.replace('/', '_')}", identity, data)
        if taken.setdefault(relative, index) != index:
            raise DataError(f"{source.path}: two pictures would be written to {relative!r}")
        path = target / "images" / relative
        if not (path.is_file() and path.stat().st_size == len(data)):
            write_atomically(path, data, durable=False)
        yield done
    if pairs is not None:
        renamed = dict(zip(taken.values(), taken, strict=True))
        names = tuple(renamed[int(i)] for i in check_pairs(pairs, source))
        write_pairs(Pairs(names, pairs.reference, pairs.probe, pairs.genuine, pairs.fold), target / "pairs.txt")


def _folders_are_identities(source: Source) -> bool:
    """Whether pictures' first folders and identities stand for each other (a list's labels may cut otherwise)."""
    pairs = {(name.split("/")[0], int(label)) for name, label in zip(source.names, source.labels, strict=True)}
    return len(pairs) == len({folder for folder, _ in pairs}) == len({label for _, label in pairs})


def _named(name: str, identity: str, data: bytes) -> str:
    """`IDENTITY/picture.ext` with the extension its bytes deserve."""
    if "/" not in name:
        name = f"{identity}/{name}"
    head, extension = os.path.splitext(name)
    true = next((e for magic, e in _MAGIC.items() if data.startswith(magic)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        true = ".webp"
    same = {".jpeg": ".jpg", ".tiff": ".tif"}.get(extension.lower(), extension.lower())
    parts = head.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise DataError(f"refusing to write a picture named {name!r} outside the folder")
    return name if true is None or true == same else head + true


def _to_bin(source: Source, target: Path, pairs: Pairs) -> Iterator[int]:
    at = check_pairs(pairs, source)
    ends = np.stack([at[pairs.reference], at[pairs.probe]], 1).ravel()
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_bin((source.read(int(i)) for i in ends), pairs.genuine.tolist(), target)


def _to_list(source: Source, target: Path) -> Iterator[int]:
    folder = target.absolute().parent
    try:
        source.path.absolute().relative_to(folder)
    except ValueError as error:
        raise DataError(
            f"{target}: paths in a list are relative to its folder, and the pictures are not below it; write the list "
            f"to {source.path.parent / target.name}, or convert the pictures first"
        ) from error
    if not (source.path / source.names[0]).is_file():
        raise DataError(f"{source.path}: a list names picture files; convert to a folder first")
    write_list(source, target, below=folder)
    yield len(source)


def to_pair_folders(source: Source, target: Path, pairs: Pairs) -> Iterator[int]:
    """Write MassFace's evaluation layout (row M1): `images/PAIR/` with two pictures, and lfw_pair.txt beside."""
    at = check_pairs(pairs, source)
    lines = []
    for k in range(len(pairs)):
        for side, end in enumerate((pairs.reference[k], pairs.probe[k])):
            data = source.read(int(at[end]))
            name = _named(f"{k:05d}/{side}.jpg", "", data)
            path = target / "images" / name
            if not (path.is_file() and path.stat().st_size == len(data)):
                write_atomically(path, data, durable=False)
        lines.append(f"{k:05d} {int(pairs.genuine[k])}\n")
        yield 2 * (k + 1)
    write_atomically(target / "lfw_pair.txt", "".join(lines).encode())


def copy_beside(source: Path, target: Path) -> list[str]:
    """Copy text lists that lie beside a picture folder (pairs, identities) to where its copy lies."""
    copied = []
    for path in sorted(source.glob("*.txt")) if source.is_dir() else []:
        if target.is_dir() and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
            copied.append(path.name)
    return copied
