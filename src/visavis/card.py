"""The model folder and its card: what the weights are, how their pictures must look, what they may be used for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from visavis.errors import DataError, ModelFormatError
from visavis.vision.preprocessing import PreprocessSpec

CARD = "card.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
CARD_FORMAT = 1
_MAX_CARD_BYTES = 4_000_000


@dataclass(frozen=True)
class ModelCard:
    """What a model is: enough to rebuild its network, feed it rightly and judge whether one may use it.

    `backbone` names an entry of BACKBONES and `backbone_args` the arguments it is built with. `thresholds` maps a
    false match rate ("1e-3") to what was calibrated for it; `evaluations` and `exports` hold the numbers measured.
    """

    name: str
    backbone: str
    embedding_dim: int
    preprocess: PreprocessSpec
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    license: str = "not stated"
    training_data: str = "not stated"
    intended_use: str = "not stated"
    source: str = ""
    weights_digest: str = ""
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Any] = field(default_factory=dict)
    exports: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def with_changes(self, **changes: Any) -> ModelCard:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """The card as JSON text."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str = CARD) -> ModelCard:
        """Read a card.

        Raises:
            ModelFormatError: not JSON, another format, or a key missing, unknown or of the wrong type.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelFormatError(f"{name}: expected a JSON model card, got text that is not JSON: {error}") from error
        if not isinstance(values, dict) or values.pop("format", None) != CARD_FORMAT:
            raise ModelFormatError(f'{name}: expected a model card with "format": {CARD_FORMAT}')
        known = {f.name for f in fields(cls)}
        required = {"name", "backbone", "embedding_dim", "preprocess"}
        if not required <= set(values) <= known:
            problem = f"missing {sorted(required - set(values))}, unknown {sorted(set(values) - known)}"
            raise ModelFormatError(f"{name}: the model card has wrong keys: {problem}")
        for key in ("backbone_args", "thresholds", "evaluations", "exports", "notes"):
            if not isinstance(values.get(key, {}), dict):
                raise ModelFormatError(f"{name}: {key!r} must be an object, got {type(values[key]).__name__}")
        for key in ("name", "backbone", "license", "training_data", "intended_use", "source", "weights_digest"):
            if not isinstance(values.get(key, ""), str):
                raise ModelFormatError(f"{name}: {key!r} must be text, got {type(values[key]).__name__}")
        dim = values["embedding_dim"]
        if isinstance(dim, bool) or not isinstance(dim, int) or not 0 < dim <= 65_536:
            raise ModelFormatError(f"{name}: 'embedding_dim' must be a whole number in [1, 65536], got {dim!r}")
        values["preprocess"] = PreprocessSpec.from_dict(values["preprocess"])
        return cls(**values)


def read_card(folder: str | os.PathLike[str]) -> ModelCard:
    """Read the card of a model folder."""
    path = Path(folder) / CARD
    try:
        if path.stat().st_size > _MAX_CARD_BYTES:
            raise ModelFormatError(f"{path}: a model card of more than {_MAX_CARD_BYTES:,} bytes is refused")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFormatError(f"{path}: cannot read the model card ({error})") from error
    return ModelCard.from_json(text, name=str(path))


def write_card(folder: str | os.PathLike[str], card: ModelCard) -> None:
    """Write the card of a model folder atomically."""
    write_atomically(Path(folder) / CARD, card.to_json().encode() + b"\n")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a full disk or a crash leaves the old one whole.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot write ({error.strerror}); the previous file, if any, is untouched") from error


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(path: str | os.PathLike[str]) -> Path:
    """Resolve what a user calls MODEL: a model folder, a run folder (its best model) or an .onnx file.

    Raises:
        ModelFormatError: none of the three.
    """
    given = Path(path)
    if given.is_file() and given.suffix in (".onnx", ".xml"):
        return given
    for folder in (given, given / "best", given / "last", given / "model"):
        if (folder / CARD).is_file():
            return folder
    what = (
        "no such file or folder" if not given.exists() else f"a {'folder' if given.is_dir() else 'file'} without a card"
    )
    raise ModelFormatError(
        f"{given}: expected a model folder (with {CARD}), a run folder or an .onnx file, got {what}; "
        "published weights become one with: visavis import CHECKPOINT --backbone NAME --out MODEL"
    )
