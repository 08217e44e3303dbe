"""All pairs of a folder per person: every picture against every other, no list wanted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from visavis import seeding
from visavis.data.sources import open_source, read_identities
from visavis.errors import ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.loading import LoadedProtocol, ProtocolArgs, SourceImages
from visavis.evaluate.protocols.pairs import PairProtocol, headline, verification_plots
from visavis.evaluate.report.tables import percent
from visavis.metrics.error_rates import rate_name
from visavis.metrics.intervals import bootstrap_subjects
from visavis.metrics.verification import VerificationMetrics, verify_scores
from visavis.types import IntArray, Pairs

log = logging.getLogger(__name__)
MOST_IMPOSTORS = 2_000_000  # 16 bytes each of indices, as much again of scores and subjects
_LONG, _DRAWS_OF_MANY = 300_000, 200  # comparisons from which on so many draws of subjects do


@dataclass(frozen=True)
class FolderProtocol(PairProtocol):
    """Every picture of a folder against every other; impostor comparisons beyond a limit are drawn.

    There is no accuracy: among all pairs nearly everything is an impostor, and saying so always is nearly always right.
    Intervals are over subjects, each of whom is in many comparisons.
    """

    name: str = "folder"
    impostors: int = 0  # comparisons of two people there are, of which `pairs` holds all or some

    def describe(self) -> dict[str, Any]:
        """Counts of pictures, subjects and of the impostor comparisons that were not drawn."""
        drawn = int(np.count_nonzero(~self.pairs.genuine))
        return {**super().describe(), "impostor_comparisons": self.impostors, "impostors_drawn": drawn}

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Cosine similarity of each pair; without folds, so that two models are compared at false match rates."""
        found = super().score(embedded, replace(settings, preset=None))
        genuine_subject = found["reference_subject"][self.pairs.genuine]
        return {**{key: values for key, values in found.items() if key != "fold"}, "genuine_subject": genuine_subject}

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """The exact figures but accuracy, with intervals over subjects.

        Raises:
            ProtocolError: a preset, which is about folds of a list.
        """
        if settings.preset is not None:
            raise ProtocolError(
                f"--preset {settings.preset} judges folds of a list, and a folder has none; leave it out"
            )
        found = verify_scores(scores["similarity"], scores["genuine"], fmrs=settings.fmrs)
        results = found.to_dict() | {"accuracy": None, "threshold": found.curve.eer_threshold}
        results["subject_bootstrap"] = _over_subjects(found, scores, settings)
        people = _people(scores)
        table = headline(results, f"All pairs of {len(self.images):,} pictures of {people:,} people")
        left = self.impostors - int(np.count_nonzero(~found.genuine))
        if left:
            some = f"; {percent(1 - left / self.impostors)} of the {self.impostors:,} impostor comparisons were drawn."
            table = replace(table, note=table.note.removesuffix(".") + some)
        plots = verification_plots(found.curve, results["threshold"])
        return ProtocolResult(results, (table,), plots)


def _over_subjects(found: VerificationMetrics, scores: Scores, settings: EvaluationSettings) -> dict[str, Any] | None:
    draws = settings.bootstrap
    if len(found.genuine) > _LONG:
        draws = min(draws, _DRAWS_OF_MANY)
    if not draws:
        return None
    drawn = bootstrap_subjects(
        np.where(np.isnan(found.similarities), -np.inf, found.similarities),
        found.genuine,
        found.genuine,
        (scores["reference_subject"], scores["probe_subject"]),
        fmrs=tuple(f for f in settings.fmrs if found.tmr_at_fmr[rate_name(f)] is not None),
        replicates=draws,
        seed=settings.seed,
    )
    return {
        "replicates": draws,
        "seed": settings.seed,
        "subjects": _people(scores),
        "tmr_at_fmr_interval": {name: list(drawn.interval(values)) for name, values in drawn.tmr.items()},
    }


def _people(scores: Scores) -> int:
    return len(np.union1d(scores["reference_subject"], scores["probe_subject"]))


def all_pairs(
    names: Sequence[str], labels: IntArray, *, most: int = MOST_IMPOSTORS, seed: int = 0, what: str = "the pictures"
) -> FolderProtocol:
    """Every pair of N pictures; where there are more than `most` impostor pairs, so many of them are drawn.

    Args:
        names: of the pictures.
        labels: who is on each, (N,).
        most: impostor comparisons at most; genuine ones are all kept.
        seed: of the draw.
        what: what an error calls them.

    Raises:
        ProtocolError: one person only, or nobody with two pictures.
    """
    labels = np.asarray(labels, np.int64)
    counts = np.bincount(labels, minlength=1)
    genuine = int((counts * (counts - 1) // 2).sum())
    impostors = len(labels) * (len(labels) - 1) // 2 - genuine
    if not genuine or not impostors:
        raise ProtocolError(
            f"{what}: all pairs want two people at least, and two pictures of one of them; got {len(labels)} pictures "
            f"of {np.count_nonzero(counts)} people"
        )
    same = _genuine(labels)
    other = _all_impostors(labels) if impostors <= most else _some_impostors(labels, most, seed)
    if impostors > most:
        log.info("%s: %d of %d impostor comparisons are drawn", what, most, impostors)
    ends = np.concatenate([same, other])
    truth = np.arange(len(ends)) < len(same)
    pairs = Pairs(tuple(names), ends[:, 0], ends[:, 1], truth, np.zeros(len(ends), np.int64))
    return FolderProtocol(pairs, labels, impostors=impostors)


def _genuine(labels: IntArray) -> IntArray:
    order = np.argsort(labels, kind="stable")
    parts = []
    for own in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        first, second = np.triu_indices(len(own), 1)
        parts.append(np.column_stack([own[first], own[second]]))
    return np.concatenate(parts)


def _all_impostors(labels: IntArray) -> IntArray:
    first, second = np.triu_indices(len(labels), 1)
    other = labels[first] != labels[second]
    return np.column_stack([first[other], second[other]])


def _some_impostors(labels: IntArray, most: int, seed: int) -> IntArray:
    """Distinct pairs of pictures of two people, all alike likely."""
    rng = seeding.generator(seed, "impostor pairs")
    found = np.empty(0, np.int64)
    while len(found) < most:
        drawn = rng.integers(0, len(labels), (2 * most, 2))
        first, second = drawn.min(axis=1), drawn.max(axis=1)
        keys = (first * len(labels) + second)[labels[first] != labels[second]]
        found = np.unique(np.concatenate([found, keys]))
    found = np.sort(rng.choice(found, most, replace=False))
    return np.column_stack(np.divmod(found, len(labels)))


def load_folder(request: ProtocolArgs) -> LoadedProtocol:
    """All pairs of SRC, a folder per person (or any labeled source); the option `identities` names some of them.

    Raises:
        ProtocolError: one person only, or nobody with two pictures; a pair list was given.
        DataError: the pictures or the list of names cannot be read.
    """
    if request.pairs is not None:
        raise ProtocolError("--protocol folder compares all pairs; a list of pairs is --protocol pairs")
    source = open_source(request.data)
    listed = request.options.get("identities")
    if listed:
        source = source.only(read_identities(listed))
    protocol = all_pairs(source.names, source.labels, what=str(request.data))
    return LoadedProtocol(protocol, SourceImages(source))
