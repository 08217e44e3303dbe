"""What a user calls MODEL: a model folder, a run folder, an exported file or the name of a packaged model."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from visavis.errors import ModelFormatError
from visavis.models.card import CARD
from visavis.models.packaged import DEFAULT, PACKAGED, packaged_folder

log = logging.getLogger(__name__)


def find_model(path: str | os.PathLike[str] | None) -> Path:
    """Resolve what a user calls MODEL: a model folder, a run folder (its best model), an .onnx file, a packaged name.

    A folder or file that bears the name of a packaged model wins, and that is said. None is the packaged default,
    whatever lies here.

    Raises:
        ModelFormatError: none of these.
        MissingPackageError: the package that carries the model is not installed.
    """
    if path is None:
        return packaged_folder(DEFAULT)
    given, named = Path(path), is_packaged(path)
    if named and not given.exists():
        return packaged_folder(os.fspath(path))
    found = _local(given)
    if found is None:
        what = "no such file or folder"
        if given.exists():
            what = f"a {'folder' if given.is_dir() else 'file'} without a card"
            what += " in the way of the packaged model of that name" if named else ""
        raise ModelFormatError(
            f"{given}: expected a model folder (with {CARD}), a run folder, an .onnx file or a packaged model "
            f"({', '.join(PACKAGED)}), got {what}; "
            "published weights become one with: visavis import CHECKPOINT --backbone NAME --out MODEL"
        )
    if named:
        log.warning("%s: the folder of that name here is used, not the packaged model", given)
    return found


def _local(given: Path) -> Path | None:
    if given.is_file() and given.suffix in (".onnx", ".xml"):
        return given
    return next((f for f in (given, given / "best", given / "last", given / "model") if (f / CARD).is_file()), None)


def is_packaged(model: str | os.PathLike[str]) -> bool:
    """Whether this is the name of a packaged model."""
    return os.fspath(model) in PACKAGED


def lasting_name(path: str | os.PathLike[str] | None) -> str:
    """How MODEL is noted down for later: a packaged model by its name, anything else by its absolute path."""
    if path is None:
        return DEFAULT
    text = os.fspath(path)
    return text if is_packaged(text) and not Path(text).exists() else str(Path(text).resolve())
