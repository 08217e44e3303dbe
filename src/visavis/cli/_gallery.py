"""What the gallery's verbs share: opening it with its model, and a bar on long work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from visavis.deploy.gallery import opening
from visavis.deploy.gallery.opening import AnyGallery
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.postgres_address import is_postgres
from visavis.deploy.gallery.records import StorageError
from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.models.find import is_packaged, lasting_name
from visavis.vision.detection.turns import Turn

_BESIDE = ".model"


def open_gallery(
    path: str,
    model: str | None,
    *,
    create: bool = False,
    read_only: bool = False,
    detector: str | None = None,
    min_face: int | None = None,
    turn: Turn = "auto",
    **options: Any,
) -> tuple[Recognizer, AnyGallery]:
    """The gallery and the recognizer it is bound to.

    The model named last is remembered: of a file in GALLERY.model, of PostgreSQL among the gallery's settings.

    Raises:
        DataError: no model was ever named for this gallery, or it is another one.
    """
    named = model or _remembered(path)
    if named is None:
        raise DataError(f"{path}: which model? add --model MODEL (a folder, .onnx file or packaged model as sface)")
    recognizer = Recognizer.load(named, detector=detector, min_face=min_face, turn=turn)
    gallery = opening.open_gallery(path, recognizer.identity, create=create, read_only=read_only, **options)
    if not read_only:
        remember_model(gallery, model if create else None, named)
    return recognizer, gallery


def remember_model(gallery: AnyGallery, typed: str | None, used: str) -> None:
    """Note which model a gallery was opened with: beside a file, in PostgreSQL if typed to enroll or serve."""
    if isinstance(gallery, PgGallery):
        if typed is not None:
            gallery.remember_model(lasting_name(typed))
        return
    note = Path(f"{gallery.path}{_BESIDE}")
    model, home = Path(lasting_name(used)), note.parent.resolve()
    # A name relative to the gallery, so that both may be moved together; a packaged model's stays as it is.
    beside = model.relative_to(home) if model.is_absolute() and model.is_relative_to(home) else model
    said = f"{beside}\n"
    if os.access(note.parent, os.W_OK) and not (note.is_file() and note.read_text(encoding="utf-8") == said):
        write_atomically(note, said.encode())


def _remembered(path: str) -> str | None:
    """The model named last, where it lies on this machine; a file's may have been moved along with it.

    Raises:
        DataError: it is not where the note beside the file says.
    """
    if not is_postgres(path):
        note = Path(path + _BESIDE)
        if not note.is_file():
            return None
        said = Path(note.read_text(encoding="utf-8").strip())
        if is_packaged(str(said)) and not (note.parent / said).exists():
            return str(said)
        places = [note.parent.resolve() / said]  # which is `said` itself where that is absolute
        if said.is_absolute():
            places.append(note.parent.resolve() / said.name)
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise DataError(f"{path}: its model was {places[0]}, where nothing is now; say where it is: --model MODEL")
        return str(found)
    with opening.open_gallery(path) as gallery:
        model = gallery.model_path if isinstance(gallery, PgGallery) else None
    return model if model is not None and (is_packaged(model) or Path(model).exists()) else None


def count_subjects(gallery: AnyGallery) -> int | None:
    """How many subjects there are, after the work is done: that they cannot be counted does not undo the work."""
    try:
        return len(gallery)
    except StorageError:
        return None


def index_kind(args: argparse.Namespace) -> Any:
    """The kind of approximate index asked for, None for the exact one."""
    kind = args.index or ("cells" if args.approximate else "exact")
    return None if kind == "exact" else kind


def writable(path: str) -> bool:
    """Whether a gallery's file and folder can be written; the server decides for itself."""
    if is_postgres(path):
        return True
    return os.access(path, os.W_OK) and os.access(Path(path).resolve().parent, os.W_OK)


def progress(items: Collection[Any], what: str, *, quiet: bool = False) -> Iterator[Any]:
    """Go through items with a bar, when there are many and somebody looks on."""
    if quiet or len(items) < 5:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, console=Console(stderr=True), transient=True)
