"""Identification (1:N): the gallery is streamed, so that a million entries cost no more memory than a block of them.

For each probe only three things are kept: the best similarity to its own subject, the rank that gives, and the best
similarities to others. Closed set (every probe enrolled): CMC(r) = #{rank ≤ r} / probes. Open set: a probe that is
not enrolled and still has a candidate above the threshold is a false positive identification,

    fpir(t) = #{non-mated: best ≥ t} / non-mated      tpir(t, r) = #{mated: rank ≤ r and own ≥ t} / mated = 1 − fnir

(ISO/IEC 19795-1:2021; NIST IR 8271).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError
from visavis.metrics.error_rates import Float64, allowed_false_matches, between, rate_name
from visavis.metrics.intervals import subject_interval, wilson
from visavis.metrics.similarity import matches
from visavis.types import FloatArray, IntArray

if TYPE_CHECKING:
    from jaxtyping import Float, Integer

_GALLERY_ROWS = 8192
_PROBE_ROWS = 1024
FPIRS = (1e-1, 1e-2, 1e-3)
RANKS = (1, 5, 10, 20)
Gallery = Callable[[], Iterable[tuple[FloatArray, IntArray]]]


@dataclass(frozen=True)
class Search:
    """What each probe found, all (P,). `own`: best similarity to its own subject, NaN where it is not enrolled.

    `rank`: 1 + the number of other subjects' entries at least as similar, 0 where not enrolled. `other`: the best
    similarity to another subject's entry. `mated`: enrolled or not. −inf stands for a probe that was not acquired.
    """

    own: Float64
    rank: IntArray
    other: Float64
    mated: npt.NDArray[np.bool_]


def search(
    probes: Float[FloatArray, "P D"],
    probe_subject: Integer[IntArray, " P"],
    gallery: Float[FloatArray, "G D"] | Gallery,
    gallery_subject: Integer[IntArray, " S"] | None = None,
    *,
    block: int = _GALLERY_ROWS,
) -> Search:
    """Compare probes (P, D) with a gallery, unit rows; a row of NaN was not acquired.

    A gallery is searched twice, once for each probe's best own entry, once to count what comes before it; in between
    nothing of size P × gallery is kept.

    Args:
        probes: of P pictures or templates.
        probe_subject: (P,) subject numbers.
        gallery: (G, D) with `gallery_subject` (G,), or a function that yields (vectors, subjects) block by block anew
            at each call, for galleries that do not fit in memory.
        gallery_subject: (G,).
        block: gallery rows compared at a time.

    Ties count against the probe: an impostor as similar as its own entry is ranked before it.
    """
    stream = _stream(gallery, gallery_subject, block)
    probe_subject = np.asarray(probe_subject)
    acquired = np.asarray(np.isfinite(probes).all(axis=1))
    safe = np.where(acquired[:, None], probes, 0).astype(np.float32)
    own = np.full(len(probes), np.nan)
    other = np.full(len(probes), -np.inf)
    mated = np.zeros(len(probes), bool)
    ahead = np.zeros(len(probes), np.int64)
    for vectors, subjects in stream():
        good = np.isfinite(vectors).all(axis=1)
        for part in _parts(len(probes)):
            same = probe_subject[part, None] == subjects[None, :]
            mated[part] |= same.any(axis=1)
            scores = safe[part] @ vectors.T
            scores[:, ~good] = -np.inf
            other[part] = np.maximum(other[part], np.where(same, -np.inf, scores).max(axis=1, initial=-np.inf))
            own[part] = np.fmax(own[part], np.where(same, scores, np.nan).max(axis=1, initial=-np.inf, where=same))
    own[~mated] = np.nan
    for vectors, subjects in stream():
        good = np.isfinite(vectors).all(axis=1)
        for part in _parts(len(probes)):
            scores = safe[part] @ vectors.T
            before = scores >= own[part, None].astype(np.float32)
            before &= good & (probe_subject[part, None] != subjects[None, :])
            ahead[part] += np.count_nonzero(before, axis=1)
    lost = ~acquired
    other[lost] = -np.inf
    own[lost & mated] = -np.inf
    ahead[lost] = np.iinfo(np.int32).max
    unreachable = mated & np.isneginf(own)
    ahead[unreachable] = np.iinfo(np.int32).max
    return Search(own, np.where(mated, ahead + 1, 0), other, mated)


@dataclass(frozen=True)
class IdentificationMetrics:
    """Figures of a search; `subject` (P,), if given, numbers who is on each probe, for intervals over subjects."""

    found: Search
    subject: IntArray | None = None
    replicates: int = 0
    seed: int = 0

    @property
    def mated(self) -> int:
        """Probes whose subject is enrolled."""
        return int(np.count_nonzero(self.found.mated))

    @property
    def non_mated(self) -> int:
        """Probes whose subject is not."""
        return len(self.found.mated) - self.mated

    @property
    def failed(self) -> int:
        """Searches that could not be made, since the probe or all its own entries were not acquired: misses."""
        lost = np.where(self.found.mated, self.found.own, self.found.other)
        return int(np.count_nonzero(np.isneginf(lost)))

    def hit_rate(self, rank: int) -> float:
        """CMC at one rank: the share of mated probes whose own entry is among the first `rank`."""
        return float(np.count_nonzero(self.found.rank[self.found.mated] <= rank)) / self.mated

    def cmc(self, ranks: int) -> Float64:
        """CMC at ranks 1..`ranks`."""
        counts = np.bincount(np.minimum(self.found.rank[self.found.mated], ranks + 1), minlength=ranks + 2)
        return np.cumsum(counts[1 : ranks + 1]) / self.mated

    def threshold_at_fpir(self, fpir: float) -> float | None:
        """The lowest useful threshold at which at most `fpir` of the non-mated probes raise a candidate.

        None where the non-mated probes allow less than one false positive.
        """
        best = np.sort(self.found.other[~self.found.mated])
        allowed = allowed_false_matches(fpir, len(best))
        if allowed < 1:
            return None
        refused = float(best[len(best) - 1 - allowed]) if allowed < len(best) else -math.inf
        own = self.found.own[self.found.mated]
        scores = np.concatenate([best, own])
        above = scores[scores > refused]
        accepted = float(above.min()) if len(above) else math.inf
        if refused == -math.inf:
            return accepted if math.isfinite(accepted) else 0.0
        return between(refused, accepted)

    def tpir(self, threshold: float, *, rank: int = 1) -> float:
        """TPIR: mated probes whose own entry is within `rank` and at least as similar as the threshold."""
        m = self.found.mated
        return (
            float(np.count_nonzero((self.found.rank[m] <= rank) & matches(self.found.own[m], threshold))) / self.mated
        )

    def fpir(self, threshold: float) -> float:
        """FPIR: non-mated probes with any candidate at least as similar as the threshold."""
        return float(np.count_nonzero(matches(self.found.other[~self.found.mated], threshold))) / self.non_mated

    def _by_subject(self, hits: npt.NDArray[np.bool_]) -> list[float] | None:
        """Interval of the mated probes' share of `hits` (P,) over their subjects, thresholds held."""
        if self.subject is None:
            return None
        mated = self.found.mated
        drawn = subject_interval(hits[mated], self.subject[mated], replicates=self.replicates, seed=self.seed)
        return None if drawn is None else list(drawn)

    def to_dict(self, *, ranks: tuple[int, ...] = RANKS, fpirs: tuple[float, ...] = FPIRS) -> dict[str, Any]:
        """The JSON keys of an identification."""
        body: dict[str, Any] = {"searches": {"mated": self.mated, "non_mated": self.non_mated}}
        if self.mated:
            hits = {str(r): self.hit_rate(r) for r in ranks}
            body |= {
                "rank_1": self.hit_rate(1),
                "rank_5": self.hit_rate(5),
                "cmc": hits,
                "cmc_interval": {r: list(wilson(round(v * self.mated), self.mated)) for r, v in hits.items()},
                "cmc_interval_subjects": {str(r): self._by_subject(self.found.rank <= r) for r in ranks},
            }
        if self.mated and self.non_mated:
            body["tpir_at_fpir"], body["tpir_at_fpir_detail"] = {}, {}
            for rate in fpirs:
                threshold = self.threshold_at_fpir(rate)
                name = rate_name(rate)
                if threshold is None:
                    body["tpir_at_fpir"][name] = body["tpir_at_fpir_detail"][name] = None
                    continue
                tpir = self.tpir(threshold)
                body["tpir_at_fpir"][name] = tpir
                body["tpir_at_fpir_detail"][name] = {
                    "tpir": tpir,
                    "interval": list(wilson(round(tpir * self.mated), self.mated)),
                    "interval_subjects": self._by_subject((self.found.rank <= 1) & matches(self.found.own, threshold)),
                    "threshold": threshold,
                    "fpir": self.fpir(threshold),
                }
        return body


def _parts(count: int) -> list[slice]:
    return [slice(start, min(start + _PROBE_ROWS, count)) for start in range(0, count, _PROBE_ROWS)]


def _stream(gallery: FloatArray | Gallery, subjects: IntArray | None, block: int) -> Gallery:
    if callable(gallery):
        return gallery
    vectors = np.asarray(gallery)
    if subjects is None or len(subjects) != len(vectors):
        raise ProtocolError(
            f"a gallery wants a subject for each of its {len(vectors)} entries, got "
            f"{'none' if subjects is None else len(subjects)}"
        )
    numbers = np.asarray(subjects)

    def blocks() -> Iterable[tuple[FloatArray, IntArray]]:
        for start in range(0, len(vectors), block):
            yield vectors[start : start + block], numbers[start : start + block]

    return blocks
