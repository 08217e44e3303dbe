"""Which model a gallery belongs to: embeddings of two models cannot be compared, so the second is refused."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from dataclasses import dataclass

from visavis.deploy.gallery.encryption import KEY_VARIABLE, Cipher, NoCipher
from visavis.deploy.gallery.retention import checked_days
from visavis.deploy.gallery.rows import Rows
from visavis.deploy.gallery.sqlite_file import Create, Store
from visavis.errors import DataError, ModelFormatError
from visavis.models.card import ModelCard


@dataclass(frozen=True)
class ModelIdentity:
    """A model's embedding space: its name, D, and a digest of its weights and preprocessing.

    An exported ONNX file carries the card of its weights, so that it shares their identity; a model with other
    weights, another channel order or another flip rule does not.
    """

    name: str
    dim: int
    digest: str

    @classmethod
    def of_card(cls, card: ModelCard) -> ModelIdentity:
        """The identity a card states.

        Raises:
            ModelFormatError: the card has no digest of the weights.
        """
        if not card.weights_digest:
            raise ModelFormatError(
                f"{card.name}: the model card has no weights_digest, so a gallery cannot be bound to it; "
                "import or export the model again"
            )
        said = json.dumps({"weights": card.weights_digest, "preprocess": card.preprocess.identity()}, sort_keys=True)
        return cls(card.name, card.embedding_dim, hashlib.sha256(said.encode()).hexdigest())


def new_settings(model: ModelIdentity, cipher: Cipher, retention_days: float | None) -> dict[str, str]:
    """What a new gallery says of itself: its model, its own id, whether it is encrypted."""
    uid = str(uuid.uuid4())
    return {
        "model_name": model.name,
        "model_digest": model.digest,
        "dim": str(model.dim),
        "uuid": uid,
        "sealed": "" if isinstance(cipher, NoCipher) else cipher.encrypt(b"visavis", context_of(uid)).hex(),
        "retention_days": "" if retention_days is None else repr(checked_days(retention_days)),
        "generation": "0",
    }


def creator(model: ModelIdentity, cipher: Cipher, retention_days: float | None) -> Create:
    """Writes the settings of a new gallery, inside the transaction that makes its tables."""
    settings = new_settings(model, cipher, retention_days)
    rows = Rows(cipher, context_of(settings["uuid"]))

    def create(db: sqlite3.Connection) -> None:
        for key, value in settings.items():
            rows.put_setting(db, key, value)

    return create


def open_binding(store: Store, model: ModelIdentity | None, cipher: Cipher) -> tuple[ModelIdentity, Rows]:
    """The model a gallery belongs to, and how its rows are encrypted and summed.

    Raises:
        DataError: another model than `model`, or another key than `encrypt`'s.
    """
    settings = store.settings()
    name, digest, dim = (settings.get(key) for key in ("model_name", "model_digest", "dim"))
    if name is None or digest is None or dim is None or not dim.isdecimal():
        raise DataError(f"{store.path}: the gallery does not say which model it is for; restore it from a backup")
    if model is not None and model.digest != digest:
        raise DataError(
            f"{store.path}: this gallery belongs to the model {name!r} ({digest[:12]}), got {model.name!r} "
            f"({model.digest[:12]}); embeddings of two models cannot be compared: enroll the pictures in a new gallery"
        )
    context = context_of(settings.get("uuid", ""))
    sealed = settings.get("sealed")
    if bool(sealed) == isinstance(cipher, NoCipher):
        state = "encrypted" if sealed else "not encrypted"
        do = f"set {KEY_VARIABLE}" if sealed else f"unset {KEY_VARIABLE}, or enroll in a new gallery"
        raise DataError(f"{store.path}: this gallery is {state}; {do}")
    if sealed and cipher.decrypt(_from_hex(sealed, store), context) != b"visavis":
        raise DataError(f"{store.path}: {KEY_VARIABLE} is not this gallery's key")
    return ModelIdentity(name, int(dim), digest), Rows(cipher, context)


def _from_hex(text: str, store: Store) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise DataError(f"{store.path}: the gallery's settings are damaged; restore it from a backup") from error


def context_of(uid: str) -> bytes:
    """Binds encrypted bytes to their gallery: moved into another, they do not open."""
    return b"visavis:" + uid.encode()
