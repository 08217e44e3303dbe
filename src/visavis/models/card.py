"""The model folder and its card: what the weights are, how their pictures must look, what they may be used for."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from visavis.errors import ModelFormatError
from visavis.files import digest_of as digest_of
from visavis.files import write_atomically as write_atomically
from visavis.types import json_object
from visavis.vision.preprocessing import PreprocessSpec

CARD = "card.json"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
CARD_FORMAT = 2
NOT_STATED = "NOASSERTION"  # SPDX's word
Similarity = Literal["cosine", "negative_squared_distance"]
_BACKBONE = re.compile(r"[\w.-]+|[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_MAX_CARD_BYTES = 4_000_000


@dataclass(frozen=True)
class LicenseTerms:
    """What one may do with a model, five things apart, each an SPDX expression where there is one.

    A text of one's own is `LicenseRef-…` or plain words; `NOASSERTION` says that nobody stated it.

    Attributes:
        code: license of the program that defines and trains the network.
        weights: license of the weights themselves.
        training_data: license or terms of the pictures they were trained on.
        redistribution: terms of passing the weights on.
        consent: what the people on the pictures agreed to.
    """

    code: str = NOT_STATED
    weights: str = NOT_STATED
    training_data: str = NOT_STATED
    redistribution: str = NOT_STATED
    consent: str = NOT_STATED

    def __post_init__(self) -> None:
        for term in fields(self):
            value = getattr(self, term.name)
            if not isinstance(value, str):
                raise ModelFormatError(f"license {term.name} must be text, got {type(value).__name__}")
            if value in ("", "not stated"):  # as cards of format 1 and recipes say it
                object.__setattr__(self, term.name, NOT_STATED)

    @classmethod
    def from_dict(cls, values: object) -> LicenseTerms:
        """Read a card's values.

        Raises:
            ModelFormatError: a key is missing or unknown, or a value no text.
        """
        expected = {term.name for term in fields(cls)}
        given = json_object(values)
        if given is None or set(given) != expected:
            got = sorted(given) if given is not None else type(values).__name__
            raise ModelFormatError(f"license wants the keys {sorted(expected)}, got {got}")
        return cls(**given)


@dataclass(frozen=True)
class ModelCard:
    """What a model is: enough to rebuild its network, feed it rightly and judge whether one may use it.

    `backbone` names an entry of BACKBONES and `backbone_args` the arguments it is built with. `thresholds` maps a
    false match rate ("1e-3") to what was calibrated for it; `evaluations` and `exports` hold the numbers measured.
    `similarity` is what two embeddings are compared by: the cosine, or −‖a − b‖² of embeddings of their own length.
    """

    name: str
    backbone: str
    embedding_dim: int
    preprocess: PreprocessSpec
    backbone_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    license: LicenseTerms = LicenseTerms()
    training_data: str = "not stated"
    intended_use: str = "not stated"
    source: str = ""
    weights_digest: str = ""
    thresholds: Mapping[str, Any] = field(default_factory=dict[str, Any])
    evaluations: Mapping[str, Any] = field(default_factory=dict[str, Any])
    exports: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    similarity: Similarity = "cosine"

    def with_changes(self, **changes: Any) -> ModelCard:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """The card as JSON text."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, name: str = CARD) -> ModelCard:
        """Read a card of this format or an earlier one.

        Raises:
            ModelFormatError: not JSON, a later format, or a key missing, unknown or of the wrong type.
        """
        try:
            values = json.loads(text, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise ModelFormatError(f"{name}: expected a JSON model card, got text that is not JSON: {error}") from error
        try:
            return _card_from(_migrated(values))
        except ModelFormatError as error:
            raise ModelFormatError(f"{name}: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.60} stands twice")
    return values


def _migrated(values: Any) -> dict[str, Any]:
    """A card's values brought to the present format, field by field as the earlier format meant them.

    Format 1 knew neither of the ways a face is reduced: what answered for it (`verify`, galleries) averaged a face more
    than twice the crop down, and so does its model now, though `prepare` sampled the crops it was trained on.
    """
    given = json_object(values) or {}
    number = given.get("format")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ModelFormatError(f'expected a model card with "format": {CARD_FORMAT} or earlier')
    if number > CARD_FORMAT:
        raise ModelFormatError(
            f"a model card of format {number}, and this visavis reads up to {CARD_FORMAT}; install a newer one"
        )
    present = {key: value for key, value in given.items() if key != "format"}
    if number == 1:
        present["license"] = asdict(LicenseTerms(weights=present.get("license", NOT_STATED)))
        if isinstance(present.get("preprocess"), dict):
            present["preprocess"] = {"antialias": "area", "normalization": "channel", **present["preprocess"]}
    return present


def _card_from(values: dict[str, Any]) -> ModelCard:
    """Check a card's plain values of the present format."""
    known = {f.name for f in fields(ModelCard)}
    required = {"name", "backbone", "embedding_dim", "preprocess"}
    if not required <= set(values) <= known:
        problem = f"missing {sorted(required - set(values))}, unknown {sorted(set(values) - known)}"
        raise ModelFormatError(f"the model card has wrong keys: {problem}")
    for key in ("backbone_args", "thresholds", "evaluations", "exports", "notes"):
        if not isinstance(values.get(key, {}), dict):
            raise ModelFormatError(f"{key!r} must be an object, got {type(values[key]).__name__}")
    for key in ("name", "backbone", "training_data", "intended_use", "source", "weights_digest"):
        if not isinstance(values.get(key, ""), str):
            raise ModelFormatError(f"{key!r} must be text, got {type(values[key]).__name__}")
    if not _BACKBONE.fullmatch(values["backbone"]):
        raise ModelFormatError(f"'backbone' must be a name or module:callable, got {values['backbone']!r:.60}")
    for rate, entry in values.get("thresholds", {}).items():
        found = (json_object(entry) or {}).get("threshold")
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise ModelFormatError(
                f"'thresholds' at {rate!r:.40}: expected an object with a finite threshold, got {entry!r:.60}"
            )
    dim = values["embedding_dim"]
    if isinstance(dim, bool) or not isinstance(dim, int) or not 0 < dim <= 65_536:
        raise ModelFormatError(f"'embedding_dim' must be a whole number in [1, 65536], got {dim!r}")
    if values.get("similarity", "cosine") not in get_args(Similarity):
        raise ModelFormatError(f"'similarity' must be one of {get_args(Similarity)}, got {values['similarity']!r}")
    values["preprocess"] = PreprocessSpec.from_dict(values["preprocess"])
    if "license" in values:
        values["license"] = LicenseTerms.from_dict(values["license"])
    return ModelCard(**values)


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
