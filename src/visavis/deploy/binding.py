"""Which model a gallery belongs to: embeddings of two models cannot be compared, so the second is refused."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass

from visavis.card import ModelCard
from visavis.deploy.sealing import KEY_VARIABLE, Plain, Seal
from visavis.deploy.store import Store
from visavis.errors import DataError, ModelFormatError


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
        said = json.dumps({"weights": card.weights_digest, "preprocess": card.preprocess.to_dict()}, sort_keys=True)
        return cls(card.name, card.embedding_dim, hashlib.sha256(said.encode()).hexdigest())


def bind(store: Store, model: ModelIdentity, seal: Seal, retention_days: float | None) -> None:
    """Write into a new gallery which model and which key it belongs to; an old one is left as it is."""
    uid = str(uuid.uuid4())
    values = {
        "model_name": model.name,
        "model_digest": model.digest,
        "dim": str(model.dim),
        "uuid": uid,
        "sealed": "" if isinstance(seal, Plain) else seal.seal(b"visavis", _context(uid)).hex(),
        "retention_days": "" if retention_days is None else repr(float(retention_days)),
    }
    with store.write() as db:
        if not db.execute("SELECT 1 FROM meta WHERE key = 'uuid'").fetchone():
            db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())


def open_binding(store: Store, model: ModelIdentity | None, seal: Seal) -> tuple[ModelIdentity, bytes]:
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
    if bool(sealed) == isinstance(seal, Plain):
        state = "encrypted" if sealed else "not encrypted"
        do = f"set {KEY_VARIABLE}" if sealed else f"unset {KEY_VARIABLE}, or enrol into a new gallery"
        raise DataError(f"{store.path}: this gallery is {state}; {do}")
    if sealed and seal.unseal(bytes.fromhex(sealed), context) != b"visavis":
        raise DataError(f"{store.path}: {KEY_VARIABLE} is not this gallery's key")
    return ModelIdentity(name, int(dim), digest), context


def _context(uid: str) -> bytes:
    """Binds sealed bytes to their gallery: moved into another, they do not open."""
    return b"visavis:" + uid.encode()
