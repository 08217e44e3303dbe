"""Identification on one's own folders, TinyFace-style ranking, MegaFace-style distractors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from visavis.data.sources import open_source
from visavis.data.sources.base import Source
from visavis.errors import ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import ErrorExample, EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.loading import LoadedProtocol, ManySources, ProtocolArgs
from visavis.evaluate.protocols.template_identification import search_outcome
from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.tables import Table, percent, percent_range
from visavis.metrics.distractors import growing_distractors
from visavis.metrics.identification import IdentificationMetrics, Search, search
from visavis.metrics.intervals import subject_interval, wilson
from visavis.metrics.verification import pair_similarities
from visavis.types import FloatArray, IntArray

_DISTRACTOR = -1  # the subject of a picture of nobody who is searched for
_SHOWN = 12


@dataclass(frozen=True)
class GalleryProbeProtocol(EvaluationProtocol):
    """Each probe against a gallery of pictures; a probe of a subject who is not enrolled is a non-mated search.

    `probe` and `gallery` are places in `images`, `subject` (images,) numbers who is on each, −1 for distractors.
    """

    images: tuple[str, ...]
    probe: IntArray
    gallery: IntArray
    subject: IntArray
    name: str = "identification"

    def describe(self) -> dict[str, Any]:
        """Counts of pictures, probes, gallery entries and subjects."""
        enrolled = np.unique(self.subject[self.gallery])
        return {
            "images": len(self.images),
            "probes": len(self.probe),
            "gallery": len(self.gallery),
            "enrolled_subjects": int(np.count_nonzero(enrolled >= 0)),
            "distractors": int(np.count_nonzero(self.subject[self.gallery] == _DISTRACTOR)),
        }

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Search the gallery."""
        probes, gallery = embedded.vectors[self.probe], embedded.vectors[self.gallery]
        found = search(probes, self.subject[self.probe], gallery, self.subject[self.gallery])
        nearest = _nearest(probes, gallery)
        return {
            "own": found.own,
            "rank": found.rank,
            "other": found.other,
            "mated": found.mated,
            "nearest": nearest,
            "probe_subject": self.subject[self.probe],
        }

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """CMC, and TPIR@FPIR where some probes are not enrolled; the worst-ranked probes as pictures."""
        found = Search(scores["own"], scores["rank"], scores["other"], scores["mated"])
        figures = IdentificationMetrics(found, scores["probe_subject"], settings.bootstrap, settings.seed)
        outcome = search_outcome({"gallery": figures}, title=f"{self.name}: {len(self.probe):,} probes")
        return ProtocolResult(outcome.results, outcome.tables, outcome.plots, self._mistakes(found, scores["nearest"]))

    def _mistakes(self, found: Search, nearest: IntArray) -> tuple[ErrorExample, ...]:
        wrong = np.flatnonzero(found.mated & (found.rank > 1) & np.isfinite(found.own))
        worst = wrong[np.argsort((found.own - found.other)[wrong], kind="stable")][:_SHOWN]
        return tuple(
            ErrorExample(
                int(self.probe[p]),
                int(self.gallery[nearest[p]]),
                f"similarity {found.other[p]:.3f}; own entry {found.own[p]:.3f}, rank {found.rank[p]}",
                "Found as somebody else",
            )
            for p in worst
        )


def _nearest(probes: FloatArray, gallery: FloatArray) -> IntArray:
    """The most similar gallery entry of each probe."""
    best, where = np.full(len(probes), -np.inf), np.zeros(len(probes), np.int64)
    safe = np.nan_to_num(probes)
    for start in range(0, len(gallery), 8192):
        scores = safe @ np.nan_to_num(gallery[start : start + 8192]).T
        top = scores.argmax(axis=1)
        value = scores[np.arange(len(safe)), top]
        better = value > best
        best[better], where[better] = value[better], top[better] + start
    return where


def load_identification(request: ProtocolArgs, *, name: str = "identification") -> LoadedProtocol:
    """`SRC/gallery` and `SRC/probe`, each a folder per identity; `SRC/distractors`, if there, joins the gallery.

    A probe whose identity has no folder in the gallery is a non-mated search (open set).
    """
    sources = {key: open_source(_part(request, key)) for key in ("gallery", "probe")}
    if (request.data / "distractors").is_dir():
        sources["distractors"] = _any_images(request, "distractors")
    numbers: dict[str, int] = {}
    names, subject, role = [], [], []
    for key, source in sources.items():
        for name_, label in zip(source.names, source.labels, strict=True):
            names.append(f"{key}/{name_}")
            known = _DISTRACTOR if key == "distractors" else numbers.setdefault(source.identities[label], len(numbers))
            subject.append(known)
            role.append(key)
    probe = np.flatnonzero(np.array(role) == "probe")
    gallery = np.flatnonzero(np.array(role) != "probe")
    protocol = GalleryProbeProtocol(tuple(names), probe, gallery, np.array(subject), name)
    return LoadedProtocol(protocol, ManySources(sources))


def load_tinyface(request: ProtocolArgs) -> LoadedProtocol:
    """TinyFace's `Gallery_Match`, `Gallery_Distractor` and `Probe`: pictures `ID_NUMBER.jpg` side by side.

    They lie in SRC or, as TinyFace ships them, in SRC/Testing_Set.
    """
    if (request.data / "Testing_Set").is_dir():
        request = replace(request, data=request.data / "Testing_Set")
    sources = {
        key: open_source(_part(request, key), kind="flat") for key in ("Gallery_Match", "Gallery_Distractor", "Probe")
    }
    numbers: dict[str, int] = {}
    names, subject, role = [], [], []
    for key, source in sources.items():
        for name in source.names:
            owner = name.partition("_")[0]
            if key != "Gallery_Distractor" and owner == name:
                raise ProtocolError(f"{source.path}: expected pictures named ID_NUMBER.jpg, got {name!r}")
            names.append(f"{key}/{name}")
            subject.append(_DISTRACTOR if key == "Gallery_Distractor" else numbers.setdefault(owner, len(numbers)))
            role.append(key == "Probe")
    probe = np.flatnonzero(role)
    gallery = np.flatnonzero(~np.array(role))
    protocol = GalleryProbeProtocol(tuple(names), probe, gallery, np.array(subject), "tinyface")
    return LoadedProtocol(protocol, ManySources(sources))


@dataclass(frozen=True)
class DistractorProtocol(EvaluationProtocol):
    """MegaFace's question: each picture of a subject is found by each other one among N distractors, for growing N.

    For every ordered pair (probe, mate) of one subject the gallery is the mate and the first N distractors of a seeded
    order: rank = 1 + #{distractors at least as similar to the probe as the mate}.
    """

    images: tuple[str, ...]
    probe: IntArray
    subject: IntArray
    distractors: IntArray
    name: str = "megaface"

    def describe(self) -> dict[str, Any]:
        """Counts of pictures, probes and distractors."""
        return {"images": len(self.images), "probes": len(self.probe), "distractors": len(self.distractors)}

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """The similarity of each pair of mates, and for each probe the best distractors at each size."""
        order = np.random.default_rng(settings.seed).permutation(self.distractors)
        probes = embedded.vectors[self.probe]
        sizes = sorted({10**k for k in range(1, 8) if 10**k <= len(order)} | {len(order)})
        top = growing_distractors(probes, embedded.vectors, order, sizes, keep=10)
        owner = self.subject[self.probe]
        first, second = _mates(owner)
        mates = pair_similarities(probes, first, second)
        return {
            "sizes": np.array(sizes),
            "top": top,
            "probe": first,
            "mate": second,
            "similarity": mates,
            "subject": owner[first],
        }

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """Rank-1 and rank-10 rates by number of distractors."""
        own = np.where(np.isnan(scores["similarity"]), -np.inf, scores["similarity"])
        rows, figures = [], {}
        for size, top in zip(scores["sizes"].tolist(), scores["top"], strict=True):
            kept = top[scores["probe"]]  # (pairs, 10), falling
            hits = {r: own > kept[:, r - 1] for r in (1, 10) if r <= kept.shape[1]}
            hits = {r: int(np.count_nonzero(h & np.isfinite(own))) for r, h in hits.items()}
            rates = {r: h / len(own) for r, h in hits.items()}
            interval = wilson(hits[1], len(own))
            first = (own > kept[:, 0]) & np.isfinite(own)
            people = subject_interval(first, scores["subject"], replicates=settings.bootstrap, seed=settings.seed)
            figures[str(size)] = {f"rank_{r}": v for r, v in rates.items()} | {
                "rank_1_interval": list(interval),
                "rank_1_interval_subjects": None if people is None else list(people),
            }
            intervals = (percent_range(interval), percent_range(people))
            rows.append((f"{size:,}", percent(rates[1]), *intervals, percent(rates.get(10))))
        title = f"{self.name}: {len(own):,} searches of a mate among distractors"
        table = Table(title, ("distractors", "rank-1", "95 % (searches)", "95 % (subjects)", "rank-10"), tuple(rows))
        curve = Series("rank-1", scores["sizes"].astype(float), np.array([f["rank_1"] for f in figures.values()]))
        plot = Plot("distractors", "Rank-1 by distractors", "distractors", "rank-1 rate", (curve,), ("log", "linear"))
        last = next(reversed(figures.values()))
        results = {"rank_1": last["rank_1"], "by_distractors": figures, "comparisons": {"searches": len(own)}}
        return ProtocolResult(results, (table,), (plot,))


def load_megaface(request: ProtocolArgs) -> LoadedProtocol:
    """`SRC/probe`, a folder per identity, and `SRC/distractors`."""
    sources: dict[str, Source] = {
        "probe": open_source(_part(request, "probe")),
        "distractors": _any_images(request, "distractors"),
    }
    names = [f"{key}/{name}" for key, source in sources.items() for name in source.names]
    count = len(sources["probe"])
    subject = np.concatenate([sources["probe"].labels, np.full(len(names) - count, _DISTRACTOR)])
    protocol = DistractorProtocol(tuple(names), np.arange(count), subject, np.arange(count, len(names)))
    if not len(_mates(subject[:count])[0]):
        raise ProtocolError(f"{request.data / 'probe'}: expected identities with two pictures or more, got none")
    return LoadedProtocol(protocol, ManySources(sources))


def _mates(owner: IntArray) -> tuple[IntArray, IntArray]:
    """All ordered pairs of different places with one owner."""
    order = np.argsort(owner, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(owner[order])) + 1)
    pairs = [(a, b) for g in groups for a in g for b in g if a != b]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _part(request: ProtocolArgs, key: str) -> Any:
    path = request.data / key
    if not path.is_dir():
        raise ProtocolError(
            f"{request.data}: expected a folder {key!r} in it; the protocol reads its pictures from there"
        )
    return path


def _any_images(request: ProtocolArgs, key: str) -> Source:
    """A folder per identity, or pictures side by side."""
    path = _part(request, key)
    inside = any(entry.is_dir() for entry in path.iterdir())
    return open_source(path, kind=None if inside else "flat")
