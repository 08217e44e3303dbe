"""The comparisons that are hardest for all models, and those that tell them apart, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.evaluate.compare.saved import SavedEvaluation
from visavis.evaluate.embedding import Images
from visavis.evaluate.protocols.base import ErrorExample
from visavis.evaluate.report.figures import ImagePair
from visavis.evaluate.runner import image_pairs

_SHOWN = 8


def hardest_pairs(evaluations: Sequence[SavedEvaluation], images: Images) -> tuple[ImagePair, ...]:
    """Wrong for every model, by the mean margin; then those that only the first, only the second gets right.

    A model's margin is how far its similarity lies on the wrong side of its own threshold, in its own standard
    deviations, so that models of different scale count alike.
    """
    first = evaluations[0]
    if "names" not in first.scores:
        return ()
    margins = np.stack([_margin(e) for e in evaluations])
    right = np.stack([e.decided.right for e in evaluations])
    groups = [("Hardest for all", ~right.any(axis=0), margins.mean(axis=0))]
    if len(evaluations) > 1:
        a, b = evaluations[0].label, evaluations[1].label
        groups.append((f"Right only for {a}", right[0] & ~right[1], margins[1] - margins[0]))
        groups.append((f"Right only for {b}", right[1] & ~right[0], margins[0] - margins[1]))
    chosen = []
    for title, mask, weight in groups:
        places = np.flatnonzero(mask & np.isfinite(weight))
        for i in places[np.argsort(-weight[places], kind="stable")][:_SHOWN]:
            said = ", ".join(f"{e.label} {e.found.similarities[i]:.3f}" for e in evaluations)
            kind = "same person" if first.found.genuine[i] else "two people"
            reference, probe = int(first.scores["reference"][i]), int(first.scores["probe"][i])
            chosen.append(ErrorExample(reference, probe, f"{kind}; {said}", title))
    return image_pairs(tuple(chosen), tuple(map(str, first.scores["names"])), images)


def _margin(evaluation: SavedEvaluation) -> np.ndarray:
    found = evaluation.found
    similarity = np.asarray(found.similarities, np.float64)
    away = np.where(found.genuine, found.threshold - similarity, similarity - found.threshold)
    return away / (float(np.nanstd(similarity)) or 1.0)
