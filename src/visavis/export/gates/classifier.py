"""The classifier's gate: an exported file's logits must be those of the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from visavis.errors import ModelFormatError
from visavis.export.gates.parity import Crops
from visavis.metrics.similarity import unit_rows
from visavis.models.logits import LogitEmbedder

# How far a logit may be off, in parts of the spread of its picture's logits.
TOLERANCES: dict[str, float] = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.2}


def compare_logits(
    reference: LogitEmbedder | None, candidate: Any, crops: Crops, *, precision: str, what: str
) -> dict[str, Any]:
    """Compare the logits of both on the crops; {} where nothing has a classifier.

        difference = √(mean (z' − z)²) / std z   of the worst picture;   top-1 agreement = share of equal decisions

    z scaled to length 1: a positive factor per picture (int8 cuts long features short) changes no decision.

    Raises:
        ModelFormatError: the export lost its classifier, names others, or is beyond the tolerance.
    """
    if reference is None:
        return {}
    if tuple(candidate.identities) != reference.identities:
        raise ModelFormatError(f"{what}: the export has not the identities of the classifier; no file was written")
    a, b = reference.embed(crops.images), unit_rows(candidate.logits(crops.images))
    worst = float((np.sqrt(np.mean((a - b) ** 2, axis=1)) / np.maximum(a.std(axis=1), 1e-12)).max())
    if not worst <= TOLERANCES[precision]:
        raise ModelFormatError(
            f"{what}: its logits are off by {worst:.2e} of their spread (allowed {TOLERANCES[precision]:g}); "
            "no file was written"
        )
    return {
        "identities": len(reference.identities),
        "difference": worst,
        "tolerance": TOLERANCES[precision],
        "top1_agreement": float((a.argmax(1) == b.argmax(1)).mean()),
    }
