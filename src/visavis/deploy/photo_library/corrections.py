"""What somebody said while looking through the people: read from the file the page writes, and kept for good."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.deploy.gallery.names import clean_name, name_key
from visavis.deploy.photo_library.store import LibraryStore
from visavis.errors import DataError

FILE = "corrections.json"
VERSION = 1
_MOST_BYTES = 64_000_000
_NO_FOLDER = re.compile(r'[<>:"/\\|?*]|^\.|\.$')
_EXPECTED = '{"version": 1, "people": [{"person": 3 or null, "name": "Ada" or null, "faces": [1, 2]}], "left_out": [5]}'


@dataclass(frozen=True)
class Told:
    """Faces said to be one person's: under that person's number, None for a new one, and name, None to leave it."""

    person: int | None
    name: str | None
    faces: tuple[int, ...]


def apply_corrections(store: LibraryStore, path: str | os.PathLike[str]) -> int:
    """Keep what a corrections file says; returns for how many faces. To apply one again changes nothing.

    Faces listed for one person are that person's from now on, whatever they look like, and nobody's else; a name makes
    it the person's. Faces under `left_out` are in no group any more (no face, or nobody of interest).

    Raises:
        DataError: not such a file, a face or person there is none of, a face of two people, a name that cannot be a
            folder's or is another's; then nothing of it is kept.
    """
    people, left_out = _read(Path(path))
    with store.transaction() as db:
        faces = {number for (number,) in db.execute("SELECT id FROM faces")}
        listed = [face for told in people for face in told.faces] + left_out
        if gone := sorted(set(listed) - faces):
            raise DataError(f"{os.fspath(path)}: there is no face {gone[0]}; save the corrections from the page anew")
        if len(set(listed)) != len(listed):
            twice = next(face for face in listed if listed.count(face) > 1)
            raise DataError(f"{os.fspath(path)}: face {twice} is listed twice; it is one person's, or left out")
        for told in people:
            person = _person(store, told, path)
            rows = [(person, face) for face in told.faces]
            db.executemany("UPDATE faces SET person = ?, told = 1, left_out = 0 WHERE id = ?", rows)
        db.executemany(
            "UPDATE faces SET person = NULL, told = 0, left_out = 1 WHERE id = ?", [(face,) for face in left_out]
        )
    return len(listed)


def _person(store: LibraryStore, told: Told, path: str | os.PathLike[str]) -> int:
    """The person's number, made where it is new; the name becomes theirs."""
    names = store.names()
    if told.person is not None and told.person not in names:
        raise DataError(
            f"{os.fspath(path)}: there is no person {told.person} any more; save the corrections from the page anew"
        )
    if told.name is not None:
        same = [number for number, name in names.items() if name_key(name).lower() == name_key(told.name).lower()]
        if same and told.person is None:
            return same[0]  # a file applied again, or one more part of somebody
        if same and same != [told.person]:
            raise DataError(f"{os.fspath(path)}: {told.name!r} is person {same[0]} already; say that they are one")
    if told.person is None:
        return _split_before(store, told) or store.new_person(told.name)
    if told.name is not None and told.name != names[told.person]:
        store.db.execute("UPDATE people SET name = ? WHERE id = ?", (told.name, told.person))
    return told.person


def _split_before(store: LibraryStore, told: Told) -> int | None:
    """The person these very faces, told already and without a name, are: the file is applied again."""
    if told.name is not None:
        return None
    said: dict[int, int] = dict(store.db.execute("SELECT id, person FROM faces WHERE told"))
    people = {said.get(face) for face in told.faces}
    person = next(iter(people))
    whole = person is not None and len(people) == 1 and len(told.faces) == list(said.values()).count(person)
    return person if whole else None


def _read(path: Path) -> tuple[list[Told], list[int]]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: corrections of more than {_MOST_BYTES:,} bytes are refused")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the corrections ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected {_EXPECTED}, got no JSON ({error})") from error
    if (
        not isinstance(values, dict)
        or values.get("version") != VERSION
        or set(values) - {"version", "people", "left_out"}
    ):
        raise DataError(f"{path}: expected {_EXPECTED}")
    people, left_out = values.get("people", []), values.get("left_out", [])
    if not isinstance(people, list) or not _numbers(left_out):
        raise DataError(f"{path}: expected {_EXPECTED}")
    return [_told(path, entry) for entry in people], left_out


def _told(path: Path, entry: Any) -> Told:
    right = isinstance(entry, dict) and not set(entry) - {"person", "name", "faces"}
    if not right or not _numbers(entry.get("faces")) or not entry["faces"]:
        raise DataError(f"{path}: expected {_EXPECTED}, got {json.dumps(entry)[:80]}")
    person, name = entry.get("person"), entry.get("name")
    if not (person is None or _numbers([person])) or not isinstance(name, str | None):
        raise DataError(f"{path}: expected {_EXPECTED}, got {json.dumps(entry)[:80]}")
    if name is not None:
        name = clean_name(name)
        if _NO_FOLDER.search(name) or re.fullmatch(r"person-\d+", name):
            raise DataError(
                f'{path}: {name!r} is to be the name of a folder: without < > : " / \\ | ? *, no dot at an end, '
                "and not person-N"
            )
    return Told(person, name, tuple(entry["faces"]))


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)
