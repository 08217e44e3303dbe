"""Forgetting, and the proof: after an erasure the files are searched for pieces of what was erased."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from visavis.deploy.gallery.records import Forgotten, UnknownSubject, tables_of
from visavis.deploy.gallery.sqlite_file import Store
from visavis.errors import DataError

_PIECE = 24  # bytes; 192 bits of an embedding do not occur twice by chance
_FACE_HOLDS = " OR ".join(
    f"instr({column}, ?1)" for column in ("vector", "crop", "picture", "source", "CAST(source_name AS BLOB)")
)
_SEARCH_BUDGET = 16_000_000_000  # bytes compared at most; a large file is searched for fewer pieces


@dataclass(frozen=True)
class SqliteTraces:
    """What an erasure removed: subject ids, counts, and pieces of the bytes by which a remainder would show."""

    subjects: tuple[int, ...]
    samples: int
    crops: int
    pieces: tuple[bytes, ...]
    unknown_faces: int = 0


def delete(
    store: Store, db: Any, subjects: Sequence[int], *, samples: Sequence[int] = (), unknown_faces: Sequence[int] = ()
) -> SqliteTraces:
    """Delete subjects with everything of theirs, leaving only their numbers behind, and single samples and faces.

    Call inside `store.write()`.
    """
    pieces: list[bytes] = []
    generation = store.next_generation(db)
    for subject in subjects:
        row = db.execute("SELECT name, consent FROM subjects WHERE id = ?", (subject,)).fetchone()
        if row is None:
            raise UnknownSubject(f"{store.path}: subject {subject} is gone already")
        pieces += [piece for value in row for piece in _text_pieces(value)]
        samples = [*samples, *(r[0] for r in db.execute("SELECT id FROM samples WHERE subject = ?", (subject,)))]
    crops = 0
    for table, numbers in (("samples", samples), ("unknown_faces", unknown_faces)):
        for number in numbers:
            query = f"SELECT crop, source_name, vector, picture, source FROM {table} WHERE id = ?"
            crop, name, *blobs = db.execute(query, (number,)).fetchone()
            pieces += [piece for blob in blobs for piece in _pieces(blob or b"", 0)]
            # Pieces of a crop come from its second half: JPEG heads are all alike.
            pieces += [*_text_pieces(name), *_pieces(crop or b"", len(crop or b"") // 2)]
            crops += crop is not None
            db.execute(f"DELETE FROM {table} WHERE id = ?", (number,))
    for subject in subjects:
        db.execute("DELETE FROM subjects WHERE id = ?", (subject,))
        db.execute("INSERT INTO forgotten VALUES (?, ?)", (subject, generation))
    return SqliteTraces(tuple(subjects), len(samples), crops, tuple(dict.fromkeys(pieces)), len(unknown_faces))


def _text_pieces(text: str | bytes | None) -> Iterator[bytes]:
    """Pieces of a text as stored, if it is long enough not to occur by chance."""
    if isinstance(text, bytes):
        yield from _pieces(text, 0)
    elif text and len(raw := text.encode(errors="surrogateescape")) >= 8:
        yield raw


def with_templates(traces: SqliteTraces, templates: Iterable[bytes]) -> SqliteTraces:
    """Traces that also tell a template which was kept beside the gallery."""
    pieces = [piece for template in templates for piece in _pieces(template, 0)]
    return replace(traces, pieces=tuple(dict.fromkeys([*traces.pieces, *pieces])))


def finish(
    store: Store,
    traces: SqliteTraces,
    *,
    index_rows: int,
    progress: Callable[[str], None] | None = None,
    note: str = "",
) -> Forgotten:
    """Scrub the files and search them; a `note` says what else is to be done, and makes the receipt incomplete."""
    scrubbed, left, undone = False, "", note
    say = progress or (lambda _: None)
    say(f"rewriting {store.path.name} ({size_of(store.files()) / 1e6:,.0f} MB)")
    try:
        scrubbed = store.scrub()
        left = "" if scrubbed else "another process holds the old state open; the log is emptied when it lets go"
    except DataError as error:  # the rows are deleted and zeroed; only the rewriting did not happen
        left = f"deleted, but the file could not be rewritten: {error}"
    size = size_of(store.files())
    pieces = traces.pieces[: max(4, int(_SEARCH_BUDGET // max(size, 1)))]
    say(f"searching {size / 1e6:,.0f} MB for {len(pieces)} pieces of what was erased")
    search = search_files(store.files(), pieces)
    found = sum(not _lives_on(store, piece) for piece in search.found)
    notes = [undone, left, search.problem]
    same = store.identity.among(search.identities)
    if not same and not search.problem:
        notes.append("another file stands where the gallery was: it was replaced meanwhile")
    if kept := [path.name for path in store.backups()]:
        notes.append(f"{', '.join(kept)} still holds the gallery as it was before the format changed; delete it")
    return Forgotten(
        subjects=len(traces.subjects), samples=traces.samples, crops=traces.crops, index_rows=index_rows,
        files=search.files, bytes_searched=search.size, fingerprints=len(pieces), found=found,
        complete=scrubbed and found == 0 and not undone and same and not kept,
        note="; ".join(filter(None, notes)),
        unknown_faces=traces.unknown_faces, ids=traces.subjects, tables=tables_of(
            subjects=len(traces.subjects), samples=traces.samples, unknown_faces=traces.unknown_faces
        ),
    )  # fmt: skip


def size_of(paths: Iterable[Path]) -> int:
    """Bytes of files, of which some may go meanwhile."""
    size = 0
    for path in paths:
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


@dataclass(frozen=True)
class ResidueSearch:
    """What was searched, the pieces found, and why not everything could be, if so."""

    files: tuple[str, ...] = ()
    identities: tuple[tuple[int, int], ...] = ()
    size: int = 0
    found: tuple[bytes, ...] = ()
    problem: str = ""


def search_files(paths: Sequence[Path], pieces: Sequence[bytes]) -> ResidueSearch:
    """Search files for pieces in a process of its own; see `residue_search`."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("residue_search.py")), *map(str, paths)]
    try:
        said = subprocess.run(
            command, input=b"\n".join(map(base64.b64encode, pieces)), capture_output=True, check=True
        ).stdout
        answer = json.loads(said)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        return ResidueSearch(problem=f"the files could not be searched ({type(error).__name__}: {error})")
    return ResidueSearch(
        tuple(Path(file["path"]).name for file in answer["files"]),
        tuple((file["device"], file["inode"]) for file in answer["files"]),
        sum(file["bytes"] for file in answer["files"]),
        tuple(pieces[i] for i in answer["found"]),
    )


def _lives_on(store: Store, piece: bytes) -> bool:
    """Whether a living subject holds the same bytes: one picture under two names, one consent note for many."""
    with store.read() as db:
        return any(
            db.execute(f"SELECT 1 FROM {table} WHERE {held} LIMIT 1", (piece,)).fetchone() is not None
            for table, held in (
                ("subjects", "instr(CAST(name AS BLOB), ?1) OR instr(CAST(consent AS BLOB), ?1)"),
                ("samples", _FACE_HOLDS),
                ("unknown_faces", _FACE_HOLDS),
            )
        )


def _pieces(blob: bytes, first: int) -> Iterator[bytes]:
    last = len(blob) - _PIECE
    for start in (first, (first + last) // 2, last):
        piece = blob[max(start, 0) : start + _PIECE]
        if len(piece) == _PIECE and len(set(piece)) > 4:
            yield piece
