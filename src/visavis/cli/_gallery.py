"""What the gallery's verbs share: opening it with its model, and a bar on long work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError
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
) -> tuple[Recognizer, Gallery]:
    """The gallery and the recognizer it is bound to; the model named last is remembered in GALLERY.model.

    Raises:
        DataError: no model was ever named for this gallery, or it is another one.
    """
    note = Path(path + _BESIDE)
    if model is None:
        if not note.is_file():
            raise DataError(f"{path}: which model? add --model MODEL (a model folder, run folder or .onnx file)")
        model = note.read_text(encoding="utf-8").strip()
    recognizer = Recognizer.load(model, detector=detector, min_face=min_face, turn=turn)
    gallery = Gallery(path, recognizer.identity, create=create, read_only=read_only, **options)
    if not read_only:
        remember_model(path, model)
    return recognizer, gallery


def remember_model(path: str, model: str) -> None:
    """Note beside a gallery which model it was opened with."""
    note = Path(path + _BESIDE)
    if os.access(note.parent, os.W_OK):
        note.write_text(str(Path(model).resolve()) + "\n", encoding="utf-8")


def index_kind(args: argparse.Namespace) -> Any:
    """The kind of approximate index asked for, None for the exact one."""
    kind = args.index or ("cells" if args.approximate else "exact")
    return None if kind == "exact" else kind


def writable(path: str) -> bool:
    """Whether a gallery's file and folder can be written."""
    return os.access(path, os.W_OK) and os.access(Path(path).resolve().parent, os.W_OK)


def progress(items: Collection[Any], what: str, *, quiet: bool = False) -> Iterator[Any]:
    """Go through items with a bar, when there are many and somebody looks on."""
    if quiet or len(items) < 5:
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, console=Console(stderr=True), transient=True)
