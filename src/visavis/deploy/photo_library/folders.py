"""What people look at: a folder of crops per person, the list `enroll` reads, and the page; all derived, made anew."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from visavis.deploy.photo_library.store import KeptFace, LibraryStore
from visavis.files import write_atomically

PEOPLE, ALONE, LIST, PAGE, DATA = "people", "others", "enroll.tsv", "index.html", "people.js"
_OURS = re.compile(r"-face(\d+)\.jpg$")


def write_folders(store: LibraryStore, out: Path, *, command: str) -> None:
    """Bring everything below `out` that is derived from the library up to date.

    `people/NAME/PICTURE-faceN.jpg` for each face that is somebody's, `others/` for the others, `enroll.tsv`
    (`path TAB name`), and the page. Crops that are not where they belong any more are taken away, other files of the
    folders stay. A killed run leaves some of them behind the library; the next one mends that.

    Args:
        store: what is known.
        out: the folder.
        command: shown on the page: what to type after corrections.
    """
    names = store.names()
    faces = list(store.faces())
    places = {face.id: _place(face, names) for face in faces}
    there = dict(_written(out))
    for path in set(there) - set(places.values()):
        os.unlink(out / path)
    for face, path in places.items():
        if there.get(path, 0) == 0:
            write_atomically(out / path, store.crop(face), durable=False)
    for folder in {os.path.dirname(path) for path in there} - {os.path.dirname(path) for path in places.values()}:
        if not os.listdir(out / folder):
            os.rmdir(out / folder)
    _write_list(out / LIST, faces, places, names)
    _write_page(out, faces, places, names, command)


def _place(face: KeptFace, names: dict[int, str]) -> str:
    """Where a face's crop belongs, relative to the library's folder."""
    stem = re.sub(r"[^\w. ()-]", "_", os.path.splitext(os.path.basename(face.path))[0])[:80] or "picture"
    name = f"{stem}-face{face.id}.jpg"
    return f"{ALONE}/{face.id // 1000:03d}/{name}" if face.person is None else f"{PEOPLE}/{names[face.person]}/{name}"


def _written(out: Path) -> Iterator[tuple[str, int]]:
    """Crops that are there, relative to `out`, and their lengths."""
    for top in (PEOPLE, ALONE):
        for folder in os.scandir(out / top) if (out / top).is_dir() else ():
            if folder.is_dir(follow_symlinks=False):
                for entry in os.scandir(folder):
                    if _OURS.search(entry.name) and entry.is_file(follow_symlinks=False):
                        yield f"{top}/{folder.name}/{entry.name}", entry.stat().st_size


def _write_list(path: Path, faces: list[KeptFace], places: dict[int, str], names: dict[int, str]) -> None:
    """The list: the crops of each person with nothing poor about them, all where a person has no such."""
    own: dict[int, list[KeptFace]] = defaultdict(list)
    for face in faces:
        if face.person is not None:
            own[face.person].append(face)
    lines = [
        f"{places[face.id]}\t{names[person]}\n"
        for person, theirs in own.items()
        for face in [f for f in theirs if not f.reasons] or theirs
    ]
    write_atomically(path, "".join(lines).encode())


def _write_page(out: Path, faces: list[KeptFace], places: dict[int, str], names: dict[int, str], command: str) -> None:
    people: dict[int, list[Any]] = defaultdict(list)
    alone: list[Any] = []
    for face in faces:
        photo = os.path.relpath(face.path, out.resolve()) if face.path else ""
        row = [face.id, quote(places[face.id]), quote(photo.replace(os.sep, "/")), face.reasons]
        (alone if face.person is None else people[face.person]).append(row)
    order = sorted(people, key=lambda person: (-len(people[person]), person))
    values = {
        "people": [{"id": person, "name": names[person], "faces": people[person]} for person in order],
        "alone": alone,
        "command": command,
    }
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    write_atomically(out / DATA, f"const LIBRARY = {text};\n".encode())
    page = files("visavis.deploy.photo_library").joinpath("page.html").read_bytes()
    write_atomically(out / PAGE, page)
