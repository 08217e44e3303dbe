"""What a protocol is: it names pictures, turns their embeddings into scores, and scores into figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from visavis._moved import renamed_method
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.report.figures import Plot
from visavis.evaluate.report.tables import Table

Scores = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class EvaluationSettings:
    """How to judge: a preset's name, the bootstrap's replicates (0 = none) and its seed, and the rates to report.

    `group_fmr` is the false match rate, over everybody, at whose threshold groups are compared.
    """

    preset: str | None = None
    bootstrap: int = 1000
    seed: int = 0
    group_fmr: float = 1e-3
    fmrs: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class ErrorExample:
    """Two pictures, by index, that the model got most wrong, or found hardest."""

    reference: int
    probe: int
    caption: str
    group: str


@dataclass(frozen=True)
class ProtocolResult:
    """The figures (JSON keys), tables, plots and most telling comparisons of one protocol."""

    results: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    mistakes: tuple[ErrorExample, ...] = field(default=())


class EvaluationProtocol(ABC):
    """A protocol never sees the model: it gets embeddings, makes scores (saved at once), then figures from those."""

    name: str
    images: tuple[str, ...]
    use_norms: bool = False

    def __init_subclass__(cls) -> None:
        """Take a subclass's `judge`, as `compute_metrics` was called in the release before."""
        if "judge" in vars(cls) and "compute_metrics" not in vars(cls):
            renamed_method(f"{cls.__name__}.judge", "compute_metrics")
            cls.compute_metrics = cls.judge  # pyright: ignore[reportAttributeAccessIssue]

    is_of_trained_people: bool = False  # by its nature: only training pictures themselves inflate its figures

    def by_preset(self, name: str) -> EvaluationProtocol:
        """The protocol as a published rule wants it; itself where the rule changes no more than how scores are judged.

        Raises:
            ProtocolError: what the rule needs was left out.
        """
        return self

    @abstractmethod
    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Arrays from which `compute_metrics` computes everything; a NaN similarity was not acquired."""

    @abstractmethod
    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """The figures of the scores."""

    def describe(self) -> dict[str, Any]:
        """What the protocol consists of, for the report."""
        return {"images": len(self.images)}
