"""Closed-set identification: every probe shows someone enrolled; is it whom the model says? (reference-systems D11)"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.data.sources import open_source, read_identities
from visavis.data.sources.lists import open_list
from visavis.errors import ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import ErrorExample, EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.loading import LoadedProtocol, ManySources, ProtocolArgs, SourceImages
from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.tables import Table, percent, percent_range
from visavis.metrics.intervals import subject_interval, wilson
from visavis.metrics.similarity import unit_rows
from visavis.types import FloatArray, IntArray

log = logging.getLogger(__name__)
_RANKS = (1, 5, 10)
_MISTAKES = 12
_CHUNK = 4096


@dataclass(frozen=True)
class ClosedSet(EvaluationProtocol):
    """Rank of the true person among all enrolled, by cosine to the mean embedding of each.

        class vector = unit(Σ embeddings of the person's enrolled pictures),  rank = 1 + #{others at least as similar}

    The reference takes the classifier trained along with the network for the class vectors (`Classified`); a recognizer
    is shipped without it and people are enrolled later, so that means of embeddings stand in its place. Ties count
    against the model. `enrolled` and `probes` number `images`; `label` (images,) says who is on each.
    """

    images: tuple[str, ...]
    label: IntArray
    enrolled: IntArray
    probes: IntArray
    people: tuple[str, ...]
    name: str = "closed-set"
    judged_by: str = "mean embeddings"

    def describe(self) -> dict[str, Any]:
        """Counts of people and pictures."""
        return {"people": len(self.people), "enrolled": len(self.enrolled), "probes": len(self.probes)}

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """For each probe: rank of its person, who came first, and both similarities; rank 0 = not acquired."""
        centers = self._centers(embedded.vectors)
        return ranked(
            self.label[self.probes], self.probes, lambda part: embedded.vectors[self.probes[part]] @ centers.T,
            np.flatnonzero(np.isfinite(embedded.vectors[self.probes]).all(axis=1)), chunk=_CHUNK,
        )  # fmt: skip

    def _centers(self, vectors: FloatArray) -> FloatArray:
        """Unit class vectors (C, D); a person none of whose pictures was acquired has NaN and is never first."""
        enrolled = self.enrolled[np.isfinite(vectors[self.enrolled]).all(axis=1)]
        if not len(enrolled):
            raise ProtocolError("not one enrolled picture could be embedded")
        sums = np.zeros((len(self.people), vectors.shape[1]), np.float64)
        np.add.at(sums, self.label[enrolled], vectors[enrolled])
        sums[~sums.any(axis=1)] = np.nan
        return unit_rows(sums).astype(np.float32)

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """Top-1, top-5 and top-10 with intervals over probes and over people, the mean over people, and the CMC."""
        rank, label = scores["rank"], scores["label"]
        right = rank == 1
        per_person = np.bincount(label, right, len(self.people)) / np.maximum(
            np.bincount(label, None, len(self.people)), 1
        )
        probed = np.bincount(label, minlength=len(self.people)) > 0
        accuracy = float(right.mean())
        drawn = subject_interval(right, label, replicates=settings.bootstrap, seed=settings.seed)
        by_rank = {str(k): float(((rank >= 1) & (rank <= k)).mean()) for k in _RANKS if k == 1 or k < len(self.people)}
        results: dict[str, Any] = {
            "comparisons": {
                "probes": len(rank),
                "people": len(self.people),
                "failed_to_acquire": int((rank == 0).sum()),
            },
            "accuracy": {
                "mean": accuracy,
                "std": float(per_person[probed].std()),
                "std_over": "people",
                "interval": list(wilson(int(right.sum()), len(rank))),
                "interval_people": None if drawn is None else list(drawn),
                "mean_over_people": float(per_person[probed].mean()),
            },
            "rank_1": accuracy,
            "top": by_rank,
            "chance": 1 / len(self.people),
        }
        rows = [
            (f"top-{k}", percent(v), percent_range(wilson(round(v * len(rank)), len(rank))), "")
            for k, v in by_rank.items()
        ]
        rows[0] = (*rows[0][:3], percent_range(drawn))
        rows.append(("top-1, mean over people", percent(results["accuracy"]["mean_over_people"]), "", ""))
        known = "enrolled" if len(self.enrolled) else "trained"
        note = f"{len(rank):,} probes of {int(probed.sum()):,} of {len(self.people):,} {known} people"
        if results["comparisons"]["failed_to_acquire"]:
            note += f"; {results['comparisons']['failed_to_acquire']:,} could not be acquired and count as wrong"
        table = Table(
            f"Closed-set identification among {len(self.people):,} people, by {self.judged_by}",
            ("figure", "value", "95 % (probes)", "95 % (people)"),
            tuple(rows),
            note + ".",
        )
        return ProtocolResult(results, (table,), (_cmc(rank, len(self.people)),), self._mistakes(scores))

    def _mistakes(self, scores: Scores) -> tuple[ErrorExample, ...]:
        """The wrong answers given most surely, each beside an enrolled picture of the person named."""
        wrong = np.flatnonzero((scores["rank"] > 1) & np.isfinite(scores["similarity_first"]))
        margin = scores["similarity_first"][wrong] - scores["similarity"][wrong]
        shown = []
        for i in wrong[np.argsort(-margin, kind="stable")][:_MISTAKES]:
            named = int(scores["first"][i])
            example = self.enrolled[self.label[self.enrolled] == named]
            if len(example):
                caption = f"taken for {self.people[named]}: {scores['similarity_first'][i]:.3f}"
                shown.append(ErrorExample(int(example[0]), int(scores["probe"][i]), caption, "Taken for another"))
        return tuple(shown)


def ranked(
    label: IntArray, probes: IntArray, similarities: Callable[[IntArray], FloatArray], acquired: IntArray, *, chunk: int
) -> Scores:
    """For each probe: rank of its person, who came first, and both similarities; rank 0 = not acquired.

    Args:
        label: (P,), the person on each probe.
        probes: (P,), the probes' pictures.
        similarities: (n,) places among the probes -> (n, people).
        acquired: the places among the probes that could be embedded.
        chunk: how many places at once.
    """
    rank, first = np.zeros(len(label), np.int64), np.full(len(label), -1, np.int64)
    own, best = (np.full(len(label), np.nan, np.float32) for _ in range(2))
    for start in range(0, len(acquired), chunk):
        part = acquired[start : start + chunk]
        similarity, true = similarities(part), label[part]
        mine = similarity[np.arange(len(part)), true]
        rank[part] = (similarity >= mine[:, None]).sum(axis=1)  # itself among them; NaN never is
        first[part] = np.where(rank[part] == 1, true, np.nanargmax(_without(similarity, true), axis=1))
        own[part], best[part] = mine, similarity[np.arange(len(part)), first[part]]
    return {
        "rank": rank, "first": first, "label": label, "similarity": own, "similarity_first": best, "probe": probes,
    }  # fmt: skip


def _without(similarity: FloatArray, true: IntArray) -> FloatArray:
    """Similarities with the true person's taken out, so that a tie is lost."""
    other = np.where(np.isnan(similarity), -np.inf, similarity)
    other[np.arange(len(true)), true] = -np.inf
    return other


def _cmc(rank: IntArray, people: int) -> Plot:
    """Share of probes whose person is among the first k."""
    k = np.arange(1, min(people, 100) + 1)
    acquired = np.sort(rank[rank > 0])
    reached = np.searchsorted(acquired, k, "right") / len(rank)
    series = (Series("model", k.astype(float), reached, "step"),)
    return Plot("cmc", "CMC", "rank", "identification rate", series, ("log", "linear"))


def load_closed_set(request: ProtocolArgs) -> LoadedProtocol:
    """SRC/train.txt enrolls, SRC/valid.txt probes; or of a folder per person the first half of each one's pictures.

    The lists are `path label` lines, as `visavis prepare --youtube-faces` writes.

    Raises:
        ProtocolError: one list of the two, a probe of somebody not enrolled, a picture in both, or one person only.
    """
    enroll, probe = request.data / "train.txt", request.data / "valid.txt"
    missing = [listed for listed in (enroll, probe) if not listed.is_file()]
    if len(missing) == 2:
        return _halves(request)
    if missing:
        raise ProtocolError(
            f"{missing[0]}: closed-set wants SRC/train.txt (pictures enrolled) and SRC/valid.txt (probes), "
            "`path TAB label` lines, as visavis prepare --youtube-faces writes; or neither: then half of each person's "
            "pictures are enrolled"
        )
    known, asked = open_list(enroll), open_list(probe)
    rows = {person: label for label, person in enumerate(known.identities)}
    strangers = [person for person in asked.identities if person not in rows]
    if strangers:
        raise ProtocolError(f"{probe}: label {strangers[0]!r} ({len(strangers)} in all) is not enrolled by {enroll}")
    if len(rows) < 2:
        raise ProtocolError(f"{enroll}: identification wants at least two people, got {len(rows)}")
    both = set(known.names) & set(asked.names)
    if both:
        raise ProtocolError(f"{probe}: {min(both)!r} ({len(both)} pictures in all) is among the enrolled pictures")
    names = (*(f"enroll/{name}" for name in known.names), *(f"probe/{name}" for name in asked.names))
    moved = np.array([rows[person] for person in asked.identities], np.int64)
    label = np.concatenate([known.labels, moved[asked.labels]])
    count = len(known.names)
    protocol = ClosedSet(names, label, np.arange(count), np.arange(count, len(names)), known.identities)
    return LoadedProtocol(protocol, ManySources({"enroll": known, "probe": asked}), (enroll, probe))


def _halves(request: ProtocolArgs) -> LoadedProtocol:
    """The first half of each person's pictures enrolled, the others as probes; one with a single picture is left out.

    Halves and not every second one: neighbors in a folder are often of one moment.
    """
    source = open_source(request.data)
    if listed := request.options.get("identities"):
        source = source.only(read_identities(listed))
    counts = np.bincount(source.labels, minlength=len(source.identities))
    several = np.flatnonzero(counts >= 2)
    if len(several) < 2:
        raise ProtocolError(
            f"{request.data}: closed-set wants two people at least with two pictures each, got {len(several)}; or "
            "SRC/train.txt (pictures enrolled) and SRC/valid.txt (probes), `path TAB label` lines"
        )
    if left := len(counts) - len(several):
        log.info("%s: %d of %d people have one picture and are left out", request.data, left, len(counts))
    kept = source.only([source.identities[i] for i in several])
    own = [np.flatnonzero(kept.labels == label) for label in range(len(several))]
    enrolled = np.concatenate([images[: -(-len(images) // 2)] for images in own])
    probes = np.setdiff1d(np.arange(len(kept)), enrolled)
    protocol = ClosedSet(kept.names, kept.labels, enrolled, probes, kept.identities)
    return LoadedProtocol(protocol, SourceImages(kept))
