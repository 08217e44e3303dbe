"""1:1 comparisons of templates (IJB-B/C) and of videos (YouTube Faces)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.pairs import PairProtocol, headline, histogram, verification_plots
from visavis.evaluate.report.tables import Table, percent
from visavis.metrics.error_rates import ErrorCurve, OperatingPoint, error_curve, rate_name
from visavis.metrics.fusion import Pooling, compare_templates, pool_templates
from visavis.metrics.intervals import percentile_interval, subject_weights, wilson
from visavis.metrics.similarity import matches
from visavis.metrics.verification import FMRS
from visavis.types import BoolArray, FloatArray, IntArray, Pairs


@dataclass(frozen=True)
class TemplateProtocol(EvaluationProtocol):
    """Millions of comparisons of templates at fixed false match rates (reference systems, row A7).

    `weights` (images,) multiply the pictures' embeddings, `subjects` (T,) number the templates' subjects (−1 unknown).
    """

    images: tuple[str, ...]
    pooling: Pooling
    templates: int
    reference: IntArray
    probe: IntArray
    genuine: BoolArray
    subjects: IntArray
    weights: FloatArray | None = None
    use_norms: bool = False
    name: str = "templates"

    def describe(self) -> dict[str, Any]:
        """Counts of pictures, templates and comparisons."""
        return {"images": len(self.images), "templates": self.templates, "comparisons": len(self.reference)}

    def by_preset(self, name: str) -> TemplateProtocol:
        """Row A7's N1 and D1 with `arcface`: pictures weigh by feature length times detector score."""
        if name != "arcface":
            return self
        if self.weights is None:
            raise ProtocolError(
                "--preset arcface weights pictures by their detector score (D1); leave one of the two out"
            )
        return replace(self, use_norms=True)

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Pool the pictures and compare the templates."""
        weights = image_weights(embedded, self.weights, use_norms=self.use_norms)
        vectors = pool_templates(embedded.vectors, self.pooling, weights=weights, templates=self.templates)
        return {
            "similarity": compare_templates(vectors, self.reference, self.probe),
            "genuine": self.genuine,
            "genuine_subject": self.subjects[self.reference[self.genuine]],
        }

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """TMR at each supported FMR with intervals over comparisons and over subjects, AUC, EER, d′."""
        genuine = scores["genuine"]
        curve = error_curve(scores["similarity"], genuine)
        points = {rate_name(f): curve.at_fmr(f) if curve.supports(f) else None for f in settings.fmrs or FMRS}
        results = _figures(curve, points, int(np.count_nonzero(np.isnan(scores["similarity"]))))
        results["subject_bootstrap"] = _genuine_bootstrap(scores, points, settings)
        table = headline(results, f"{self.name}: {len(genuine):,} comparisons")
        tables = (table, _preset_table(curve, points)) if settings.preset == "arcface" else (table,)
        if settings.preset == "arcface":
            results["preset"] = {
                "name": "arcface",
                "rows": "A7",
                "weights": "feature length (N1) x detector score (D1)",
                "tmr_at_nearest_fmr": nearest_rates(curve, points),
            }
        plots = (*verification_plots(curve, results["threshold"])[:2], histogram(curve, results["threshold"]))
        return ProtocolResult(results, tables, plots)


def image_weights(embedded: Embeddings, weights: FloatArray | None, *, use_norms: bool) -> FloatArray | None:
    """Detector scores, feature norms, their product, or nothing; (N,)."""
    if not use_norms:
        return weights
    norms = embedded.require_norms()
    return norms if weights is None else norms * weights


def _figures(curve: ErrorCurve, points: dict[str, OperatingPoint | None], failed: int) -> dict[str, Any]:
    detail = {
        name: None
        if p is None
        else {
            "tmr": p.tmr,
            "interval": list(wilson(p.true_matches, len(curve.genuine))),
            "threshold": p.threshold,
            "fmr": p.fmr,
            "false_matches": p.false_matches,
        }
        for name, p in points.items()
    }
    return {
        "comparisons": {
            "total": len(curve.genuine) + len(curve.impostor),
            "genuine": len(curve.genuine),
            "impostor": len(curve.impostor),
            "failed_to_acquire": failed,
        },
        "accuracy": None,
        "auc": curve.auc,
        "eer": curve.eer,
        "tmr_at_fmr": {name: None if p is None else p.tmr for name, p in points.items()},
        "tmr_at_fmr_detail": detail,
        "threshold": curve.eer_threshold,
        "eer_threshold": curve.eer_threshold,
        "d_prime": curve.d_prime,
        "min_detection_cost": {"prior": 0.01, "value": curve.detection_cost(prior=0.01)},
    }


def _genuine_bootstrap(
    scores: Scores, points: dict[str, OperatingPoint | None], settings: EvaluationSettings
) -> dict[str, Any] | None:
    """TMR when the subjects of the genuine comparisons are drawn again, thresholds held.

    Drawing both sides of millions of impostor comparisons again would cost hours; the thresholds rest on so many of
    them that their share of the uncertainty is small beside that of the few thousand subjects.
    """
    subject = scores["genuine_subject"]
    if not settings.bootstrap or not len(subject) or subject.min() < 0:
        return None
    similarity = scores["similarity"][scores["genuine"]]
    names, number = np.unique(subject, return_inverse=True)
    drawn = subject_weights(len(names), replicates=settings.bootstrap, seed=settings.seed)
    total = drawn @ np.bincount(number)
    intervals = {}
    for name, point in points.items():
        if point is not None:
            matched = np.bincount(number, weights=matches(similarity, point.threshold))
            intervals[name] = list(percentile_interval((drawn @ matched) / total))
    return {
        "replicates": settings.bootstrap,
        "seed": settings.seed,
        "subjects": len(names),
        "thresholds": "held",
        "tmr_at_fmr_interval": intervals,
    }


def nearest_rates(curve: ErrorCurve, rates: Iterable[str]) -> dict[str, float]:
    """Row A18: the TMR at the operating point whose FMR is nearest to the target, even where it is above.

    The source takes the nearest among the corners of scikit-learn's roc_curve, which leaves out points on a straight
    line; of equally near ones the most lax.
    """
    _, fmr, tmr = corner_points(curve)
    found = {}
    for name in rates:
        away = np.abs(fmr - float(name))
        nearest = np.flatnonzero(away == away.min())[-1]
        found[name] = float(tmr[nearest])
    return found


def corner_points(curve: ErrorCurve) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The ROC without the points between two equal steps, strict to lax (scikit-learn's drop_intermediate).

    Shapes: (T,) each.
    """
    thresholds, fmr, tmr = curve.roc()
    fm = np.rint(fmr * len(curve.impostor)).astype(np.int64)
    tm = np.rint(tmr * len(curve.genuine)).astype(np.int64)
    if len(fm) > 3:  # scikit-learn looks before it puts the point (0, 0) in front
        bends = (np.diff(fm[1:], 2) != 0) | (np.diff(tm[1:], 2) != 0)
        keep = np.concatenate([[True, True], bends, [True]])
        thresholds, fmr, tmr = thresholds[keep], fmr[keep], tmr[keep]
    return thresholds, fmr, tmr


def _preset_table(curve: ErrorCurve, points: dict[str, OperatingPoint | None]) -> Table:
    rows = tuple((f"TAR at FAR {n}", percent(v)) for n, v in nearest_rates(curve, points).items())
    note = "Rule of rows A7 and A18 (F2, N1, D1): the operating point of nearest FAR, even above the target."
    return Table("Preset arcface", ("figure", "value"), rows, note)


@dataclass(frozen=True)
class VideoPairProtocol(PairProtocol):
    """Pairs of videos: `pairs.images` names the videos, whose frames are pooled; folds and figures as for pictures."""

    frames: tuple[str, ...] = ()
    pooling: Pooling | None = None
    use_norms: bool = False

    @property
    def images(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The frames, each once."""
        return self.frames

    def describe(self) -> dict[str, Any]:
        """Counts of frames, videos, folds and subjects."""
        body = super().describe()
        return {**body, "images": len(self.frames), "videos": len(self.pairs.images)}

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Pool each video's frames, then score as pairs."""
        assert self.pooling is not None
        weights = image_weights(embedded, None, use_norms=self.use_norms)
        vectors = pool_templates(embedded.vectors, self.pooling, weights=weights, templates=len(self.pairs.images))
        return super().score(Embeddings(self.pairs.images, vectors), settings)

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """As for pairs, without pictures of mistakes (a video is not one picture)."""
        outcome = super().compute_metrics(scores, settings)
        return ProtocolResult(outcome.results, outcome.tables, outcome.plots)


def video_protocol(
    videos: dict[str, list[str]], pairs: Pairs, *, name: str, use_norms: bool = False
) -> VideoPairProtocol:
    """A protocol over videos: name -> frames; a video is one template, each frame a medium of its own (plain mean)."""
    frames = [f for video in pairs.images for f in videos[video]]
    template = np.repeat(np.arange(len(pairs.images)), [len(videos[v]) for v in pairs.images])
    count = np.arange(len(frames))
    base = PairProtocol.of(pairs, name=name)
    return VideoPairProtocol(base.pairs, base.subjects, name, tuple(frames), Pooling(count, template, count), use_norms)
