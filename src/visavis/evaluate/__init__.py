"""Evaluation one can publish and defend: exact figures, their uncertainty, and where they come from.

`evaluate(embedder, protocol, images)` gives a `Report`; `verify_pairs(embeddings, pairs)` the figures alone. Names load
on first use, so that a caller who wants one does not import the plots of the other.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis.evaluate.embedding import Embedded as Embedded
    from visavis.evaluate.embedding import embed_images as embed_images
    from visavis.evaluate.pairs import PairProtocol as PairProtocol
    from visavis.evaluate.protocol import EvaluationProtocol as EvaluationProtocol
    from visavis.evaluate.protocol import Settings as Settings
    from visavis.evaluate.report import Report as Report
    from visavis.evaluate.runner import evaluate as evaluate
    from visavis.evaluate.verification import Verification as Verification
    from visavis.evaluate.verification import verify_pairs as verify_pairs
    from visavis.evaluate.verification import verify_scores as verify_scores

_HOMES = {
    "Embedded": "embedding",
    "EvaluationProtocol": "protocol",
    "PairProtocol": "pairs",
    "Report": "report",
    "Settings": "protocol",
    "Verification": "verification",
    "embed_images": "embedding",
    "evaluate": "runner",
    "verify_pairs": "verification",
    "verify_scores": "verification",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'visavis.evaluate' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(f"visavis.evaluate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
