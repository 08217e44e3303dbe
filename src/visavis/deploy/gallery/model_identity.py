"""Which model a gallery belongs to: embeddings of two models cannot be compared, so the second is refused."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from visavis.deploy.gallery.encryption import KEY_VARIABLE, Cipher, NoCipher
from visavis.deploy.gallery.retention import checked_days
from visavis.deploy.gallery.sqlite_file import SCHEMA_VERSION, Store
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


def bind(store: Store, model: ModelIdentity, seal: Cipher, retention_days: float | None) -> None:
    """Write into a new gallery which model and which key it belongs to; an old one is left as it is."""
    uid = str(uuid.uuid4())
    values = {
        "model_name": model.name,
        "model_digest": model.digest,
        "dim": str(model.dim),
        "uuid": uid,
        "sealed": "" if isinstance(seal, NoCipher) else seal.seal(b"visavis", _context(uid)).hex(),
        "retention_days": "" if retention_days is None else repr(checked_days(retention_days)),
    }
    with store.write() as db:
        if not db.execute("SELECT 1 FROM meta WHERE key = 'uuid'").fetchone():
            db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())


def open_binding(store: Store, model: ModelIdentity | None, seal: Cipher) -> tuple[ModelIdentity, bytes]:
    """The model a gallery belongs to, and the context its bytes are sealed with.

    Raises:
        DataError: another model than `model`, or another key than `seal`'s.
    """
    name, digest, dim = (store.meta(key) for key in ("model_name", "model_digest", "dim"))
    if name is None or digest is None or dim is None:
        raise DataError(f"{store.path}: the gallery does not say which model it is for; delete it and enrol again")
    if model is not None and model.digest != digest:
        raise DataError(
            f"{store.path}: this gallery belongs to the model {name!r} ({digest[:12]}), got {model.name!r} "
            f"({model.digest[:12]}); embeddings of two models cannot be compared: enrol the pictures into a new gallery"
        )
    context = _context(store.meta("uuid") or "")
    sealed = store.meta("sealed")
    if bool(sealed) == isinstance(seal, NoCipher):
        state = "encrypted" if sealed else "not encrypted"
        do = f"set {KEY_VARIABLE}" if sealed else f"unset {KEY_VARIABLE}, or enrol into a new gallery"
        raise DataError(f"{store.path}: this gallery is {state}; {do}")
    if sealed and seal.unseal(bytes.fromhex(sealed), context) != b"visavis":
        raise DataError(f"{store.path}: {KEY_VARIABLE} is not this gallery's key")
    return ModelIdentity(name, int(dim), digest), context


def encrypted_texts(values: dict[str, Any], seal: Cipher, context: bytes) -> dict[str, Any]:
    """The columns of an encrypted gallery for a plain name and consent note: a keyed digest to look the name up by."""
    sealed = dict(values)
    if "name" in values:
        text = values["name"].encode()
        sealed |= {"name": seal.digest(text, context).hex(), "title": seal.seal(text, context)}
    if values.get("consent"):
        sealed["consent"] = seal.seal(values["consent"].encode(), context)
    return sealed


def upgrade(store: Store, seal: Cipher, context: bytes) -> None:
    """Bring a gallery of format 1, whose names and notes were plain even when sealed, to format 2.

    Raises:
        DataError: it is encrypted and opened for reading only.
    """
    if store.version == SCHEMA_VERSION or (store.read_only and isinstance(seal, NoCipher)):
        return
    if store.read_only:
        raise DataError(
            f"{store.path}: its names are not encrypted yet (format {store.version}); where it can be written, type: "
            f"visavis gallery {store.path} check"
        )
    with store.write() as db:
        if store.version == SCHEMA_VERSION:
            return  # another process did it while this one waited
        db.execute("ALTER TABLE subjects ADD COLUMN title BLOB")
        if not isinstance(seal, NoCipher):
            for subject, name, consent in db.execute("SELECT id, name, consent FROM subjects").fetchall():
                fresh = encrypted_texts({"name": name, "consent": consent}, seal, context)
                db.execute(
                    "UPDATE subjects SET name = :name, title = :title, consent = :consent WHERE id = :id",
                    {**fresh, "id": subject},
                )
            marks = db.execute("SELECT id, picture FROM samples WHERE picture IS NOT NULL").fetchall()
            db.executemany(
                "UPDATE samples SET picture = ? WHERE id = ?", [(seal.digest(m, context), i) for i, m in marks]
            )
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    if not isinstance(seal, NoCipher):
        store.scrub()


def _context(uid: str) -> bytes:
    """Binds sealed bytes to their gallery: moved into another, they do not open."""
    return b"visavis:" + uid.encode()
