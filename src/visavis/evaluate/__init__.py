"""Evaluation one can publish and defend: exact figures, their uncertainty, and where they come from.

`evaluate(embedder, protocol, images)` gives a `Report`; `verify_pairs(embeddings, pairs)` the figures alone. Names load
on first use, so that a caller who wants one does not import the plots of the other.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis.evaluate.embedding import Embeddings as Embeddings
    from visavis.evaluate.embedding import embed_images as embed_images
    from visavis.evaluate.protocols.base import EvaluationProtocol as EvaluationProtocol
    from visavis.evaluate.protocols.base import EvaluationSettings as EvaluationSettings
    from visavis.evaluate.protocols.pairs import PairProtocol as PairProtocol
    from visavis.evaluate.report.report import Report as Report
    from visavis.evaluate.runner import evaluate as evaluate
    from visavis.metrics.verification import VerificationMetrics as VerificationMetrics
    from visavis.metrics.verification import verify_pairs as verify_pairs
    from visavis.metrics.verification import verify_scores as verify_scores

_HOMES = {
    "Embeddings": "visavis.evaluate.embedding",
    "EvaluationProtocol": "visavis.evaluate.protocols.base",
    "PairProtocol": "visavis.evaluate.protocols.pairs",
    "Report": "visavis.evaluate.report.report",
    "EvaluationSettings": "visavis.evaluate.protocols.base",
    "VerificationMetrics": "visavis.metrics.verification",
    "embed_images": "visavis.evaluate.embedding",
    "evaluate": "visavis.evaluate.runner",
    "verify_pairs": "visavis.metrics.verification",
    "verify_scores": "visavis.metrics.verification",
}
_FORMER = {"Embedded": "Embeddings", "Settings": "EvaluationSettings", "Verification": "VerificationMetrics"}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        now = _FORMER[name]
        warnings.warn(f"visavis.evaluate.{name} is now {now}", DeprecationWarning, stacklevel=2)
        name = now
    if name not in _HOMES:
        raise AttributeError(f"module 'visavis.evaluate' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
