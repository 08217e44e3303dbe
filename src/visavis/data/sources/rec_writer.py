"""Write a source as InsightFace's training set: train.rec, train.idx, train.lst and `property`; resumable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from visavis.data.sources.base import Source
from visavis.data.sources.recordio import RecordFile, RecordWriter, pack
from visavis.data.text import listable
from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.vision import images

_FLOAT_EXACT = 1 << 24


def fingerprint(source: Source) -> str:
    """A digest of what a source holds by name, to tell whether an interrupted conversion was of the same."""
    digest = hashlib.sha256(source.labels.tobytes())
    for name in source.names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def write_records(source: Source, folder: Path, *, stem: str = "train") -> Iterator[int]:
    """Write `stem`.rec, .idx, .lst and `property` into a folder; yields the number of pictures done after each.

    Pictures are written grouped by identity, their bytes as they are (never encoded anew). Record 0 holds the labels
    `[images + 1, records]`, the records behind the pictures one identity's `[first key, last key + 1)` each. A float32
    label is exact up to 2²⁴; larger sets are written without these index records. An interrupted run leaves
    `stem`.rec.part and goes on there.

    Raises:
        DataError: a picture cannot be read, or the folder cannot be written.
    """
    listable(source.names, f"{stem}.lst")
    if len(source.identities) > _FLOAT_EXACT:
        raise DataError(
            f"{source.path}: {len(source.identities):,} identities do not fit a .rec, whose labels are float32 and "
            f"tell only {_FLOAT_EXACT:,} apart; cut the set in parts, or keep it as a folder per identity"
        )
    folder.mkdir(parents=True, exist_ok=True)
    order = np.argsort(source.labels, kind="stable")
    sizes = np.bincount(source.labels, minlength=len(source.identities))
    total = len(order) + 1 + len(sizes)
    indexed = total < _FLOAT_EXACT
    paths = {kind: folder / f"{stem}.{kind}" for kind in ("rec", "idx", "lst")}
    parts = {kind: path.with_name(path.name + ".part") for kind, path in paths.items()}
    done = _resume(folder, stem, fingerprint(source), parts, header=indexed)
    try:
        with parts["rec"].open("ab") as record, parts["idx"].open("ab") as index, parts["lst"].open("ab") as listing:
            writer = RecordWriter(record, index)
            if indexed and not writer.offset:
                writer.write(0, pack(b"", (float(len(order) + 1), float(total))))
            for key, i in enumerate(order[done:].tolist(), done + 1):
                label = int(source.labels[i])
                writer.write(key, pack(source.read(i), float(label), id=key))
                listing.write(f"{key}\t{label}\t{source.names[i]}\n".encode("utf-8", "surrogateescape"))
                yield key
            if indexed:
                ends = np.cumsum(sizes) + 1
                for k, (first, last) in enumerate(zip((ends - sizes).tolist(), ends.tolist(), strict=True)):
                    writer.write(len(order) + 1 + k, pack(b"", (float(first), float(last)), id=len(order) + 1 + k))
    except OSError as error:
        raise DataError(f"{folder}: cannot write the record file ({error.strerror}); run again to go on") from error
    height, width = images.decode(source.read(int(order[0])), name=source.names[int(order[0])]).shape[:2]
    write_atomically(folder / "property", f"{len(sizes)},{height},{width}\n".encode())
    for kind, path in paths.items():
        parts[kind].replace(path)
    (folder / f"{stem}.state.json").unlink(missing_ok=True)


def _resume(folder: Path, stem: str, digest: str, parts: dict[str, Path], *, header: bool) -> int:
    """Cut what an interrupted run left back to its last whole picture; how many pictures are done."""
    state = folder / f"{stem}.state.json"
    ends: list[int] = []
    if state.is_file() and json.loads(state.read_text()).get("fingerprint") == digest:
        ends = _whole_records(parts["rec"])
    lines = {
        kind: parts[kind].read_bytes().split(b"\n")[:-1] if parts[kind].is_file() else [] for kind in ("idx", "lst")
    }
    done = min(len(ends) - header, len(lines["idx"]) - header, len(lines["lst"]))
    if done <= 0:
        for part in parts.values():
            part.unlink(missing_ok=True)
        write_atomically(state, json.dumps({"fingerprint": digest}).encode())
        return 0
    with parts["rec"].open("r+b") as file:
        file.truncate(ends[done + header - 1])
    for kind, count in (("idx", done + header), ("lst", done)):
        parts[kind].write_bytes(b"".join(line + b"\n" for line in lines[kind][:count]))
    return done


def _whole_records(path: Path) -> list[int]:
    """Where each whole record of an unfinished file ends."""
    if not path.is_file() or path.stat().st_size < 8:
        return []
    file = RecordFile(path)
    offsets, damaged = file.scan(skip_damaged=True)
    limit = damaged[0][0] if damaged else file.size
    return [file.end_of(offset) for offset in offsets.tolist() if offset < limit]
