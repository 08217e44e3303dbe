"""An evaluation as it was written: its JSON and the scores beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visavis.errors import ProtocolError
from visavis.evaluate.score_files import load_scores
from visavis.metrics.paired_tests import PairedDecisions
from visavis.metrics.verification import VerificationMetrics, verify_scores

SAME = ("reference", "probe", "genuine", "fold")


@dataclass(frozen=True)
class SavedEvaluation:
    """One evaluation as it was written: its JSON, its scores and its figures computed anew."""

    label: str
    body: Mapping[str, Any]
    scores: Mapping[str, np.ndarray]
    found: VerificationMetrics
    file: str = ""

    @property
    def warnings(self) -> list[str]:
        """Why its figures mean less than they seem to."""
        said = self.body.get("warnings")
        return [str(warning) for warning in said] if isinstance(said, list) else []

    @property
    def of_templates(self) -> bool:
        """Whether its comparisons are templates' (IJB), judged at false match rates instead of in folds."""
        return "fold" not in self.scores

    def figures(self) -> dict[str, Any]:
        """The figures, without an accuracy where the protocol has none."""
        return {**self.found.to_dict(), **({"accuracy": None} if self.of_templates else {})}

    @property
    def decided(self) -> PairedDecisions:
        """Its decisions, for paired tests."""
        assert self.found.folds is not None
        similarities = np.where(np.isnan(self.found.similarities), -np.inf, self.found.similarities)
        return PairedDecisions(similarities, self.found.folds.match == self.found.genuine)


def read_evaluation(path: str | os.PathLike[str]) -> SavedEvaluation:
    """Read the JSON of an evaluation of pairs or templates, and the scores written beside it.

    Raises:
        ProtocolError: no evaluation, no scores, or a protocol whose scores are not pairs.
    """
    path = Path(path)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ProtocolError(f"{path}: expected the JSON of an evaluation (visavis evaluate --json): {error}") from error
    if not isinstance(body, dict) or "protocol" not in body:
        raise ProtocolError(f"{path}: expected the JSON of an evaluation, got another JSON file")
    if not isinstance(body.get("scores"), str):
        raise ProtocolError(f"{path}: names no scores; evaluate again with: visavis evaluate ... --json {path.name}")
    scores = load_scores(path.parent / Path(body["scores"]).name)
    wanted = ("genuine", "genuine_subject") if "genuine_subject" in scores else SAME
    missing = [name for name in ("similarity", *wanted) if name not in scores]
    if missing:
        raise ProtocolError(
            f"{path}: a paired test needs scores of pairs or templates, those of {body['protocol']!r} lack "
            f"{', '.join(missing)}"
        )
    found = verify_scores(scores["similarity"], scores["genuine"], scores.get("fold"))
    if found.folds is None:
        raise ProtocolError(f"{path}: too few comparisons for folds")
    model = body.get("model")
    name = str(model.get("name", path.stem)) if isinstance(model, dict) else path.stem
    return SavedEvaluation(name, body, scores, found, path.stem)
