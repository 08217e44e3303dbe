"""Verification by Joint Bayesian, DeepID's scorer, in place of the cosine; learned from people who are not compared."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import PurePosixPath

import numpy as np

from visavis.data.sources.base import Source
from visavis.errors import DataError, ProtocolError
from visavis.evaluate.embedding import Embeddings, Progress, embed_images
from visavis.evaluate.protocols.base import EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.loading import SourceImages
from visavis.evaluate.protocols.pairs import PairProtocol, subject_names
from visavis.metrics.joint_bayesian import PairScorer
from visavis.types import Embedder, Pairs

_NAMED = 3


@dataclass(frozen=True)
class JointPairs(PairProtocol):
    """A pair protocol whose similarities are log likelihood ratios of one person against two."""

    scorer: PairScorer = field(kw_only=True)

    @classmethod
    def around(cls, protocol: EvaluationProtocol, scorer: PairScorer) -> JointPairs:
        """The same pairs with another scorer.

        Raises:
            ProtocolError: not a protocol of plain pairs.
        """
        _require_pairs(protocol)
        return cls(**{f.name: getattr(protocol, f.name) for f in fields(PairProtocol)}, scorer=scorer)

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """As PairProtocol's, the cosine replaced by s(x₁, x₂)."""
        pairs, vectors = self.pairs, embedded.vectors
        found = super().score(embedded, settings)
        return {**found, "similarity": self.scorer.score(vectors[pairs.reference], vectors[pairs.probe])}

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """As PairProtocol's; the axis of the scores says what they are."""
        outcome = super().compute_metrics(scores, settings)
        plots = (replace(p, x_label="log likelihood ratio") if p.name == "histogram" else p for p in outcome.plots)
        return replace(outcome, plots=tuple(plots))


def learn_scorer(
    embedder: Embedder,
    source: Source,
    protocol: EvaluationProtocol,
    *,
    dim: int = 100,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> PairScorer:
    """PCA to `dim` and Joint Bayesian from the people of `source`, none of whom may be among those compared.

    Raises:
        ProtocolError: a person of `source` is compared too, or the protocol has no plain pairs.
        DataError: too few pictures or people for `dim`, or a picture cannot be read.
    """
    both = sorted(_people(_require_pairs(protocol).pairs) & _people_of(source))
    if both:
        shown = ", ".join(both[:_NAMED]) + (f" and {len(both) - _NAMED} more" if len(both) > _NAMED else "")
        raise ProtocolError(
            f"{source.path}: Joint Bayesian must be learned from people who are not compared, but {shown} "
            "are in both; name the people to learn from with --jb-identities FILE"
        )
    embedded = embed_images(embedder, source.names, SourceImages(source), batch_size=batch_size, progress=progress)
    if not np.isfinite(embedded.vectors).all():
        raise DataError(f"{source.path}: {len(embedded.failed)} pictures to learn from cannot be read")
    return PairScorer.fit(embedded.vectors, source.labels, dim=dim)


def _people(pairs: Pairs) -> set[str]:
    """Names of the people compared, without the folders above them."""
    names = subject_names(pairs) or [str(PurePosixPath(image).parent) for image in pairs.images]
    return {PurePosixPath(name).name for name in names}


def _people_of(source: Source) -> set[str]:
    """Names of the people of a source: its identities, and its first folders since a list may number its people."""
    return {*source.identities, *(name.split("/")[0] for name in source.names)}


def _require_pairs(protocol: EvaluationProtocol) -> PairProtocol:
    if type(protocol) is not PairProtocol:
        raise ProtocolError(f"Joint Bayesian scores the pair protocols, got {protocol.name}")
    return protocol
