"""The pair protocols (LFW, CFP, AgeDB, CALFW, CPLFW, XQLFW): same person or not, in folds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.presets import get_preset, pair_measure, preset_table, run_preset, xnorm
from visavis.evaluate.protocols.base import ErrorExample, EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.tables import Table, number, percent, percent_range
from visavis.metrics.error_rates import ErrorCurve, rate_name
from visavis.metrics.intervals import bootstrap_subjects, wilson
from visavis.metrics.verification import VerificationMetrics, pair_similarities, verify_scores
from visavis.types import FloatArray, IntArray, Pairs

_MISTAKES = 12
_FEW = 10  # false matches below which a table says how few its threshold rests on
_SUBJECT_IN_NAME = tuple(
    re.compile(pattern)
    for pattern in (
        r"([^/]+)/",
        r"(.+)/",
        r"(?:.*/)?([^/]+)_[0-9]+\.[a-zA-Z]+$",
        r"(?:.*/)?[0-9]+_([^/]+)_[0-9]+_[a-z]\.[a-zA-Z]+$",
    )
)


@dataclass(frozen=True)
class PairProtocol(EvaluationProtocol):
    """Verification of a list of pairs. `subjects` (images,) numbers who is on each picture; −1 where unknown."""

    pairs: Pairs
    subjects: IntArray
    name: str = "pairs"

    @property
    def images(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The pictures of the list, each once."""
        return self.pairs.images

    @classmethod
    def of(cls, pairs: Pairs, *, name: str = "pairs") -> PairProtocol:
        """A protocol that takes the subjects from the pictures' names."""
        return cls(pairs, subjects_of(pairs), name)

    def describe(self) -> dict[str, Any]:
        """Counts of pictures, pairs, folds and subjects."""
        known = self.subjects[self.subjects >= 0]
        return {
            "images": len(self.images),
            "folds_in_list": len(np.unique(self.pairs.fold)),
            "subjects": len(np.unique(known)),
        }

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Cosine similarity of each pair, with all that judging needs."""
        pairs, vectors = self.pairs, embedded.vectors
        similarity: FloatArray = pair_similarities(vectors, pairs.reference, pairs.probe)
        measured = {}
        if settings.preset is not None:
            preset = get_preset(settings.preset)
            measured["measure"] = pair_measure(vectors, pairs.reference, pairs.probe, preset, dots=similarity)
            if preset.xnorm and embedded.view_norms is not None:
                measured["view_norm"] = embedded.view_norms
        return {
            "similarity": similarity,
            **measured,
            "genuine": pairs.genuine,
            "fold": pairs.fold,
            "reference": pairs.reference,
            "probe": pairs.probe,
            "reference_subject": self.subjects[pairs.reference],
            "probe_subject": self.subjects[pairs.probe],
            "names": np.array(self.pairs.images),
        }

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """Every exact figure, Wilson intervals over pairs and bootstrap intervals over subjects.

        With a preset its figures stand under `preset`, the published rule's accuracy among them; the others keep their
        meaning.
        """
        found = verify_scores(scores["similarity"], scores["genuine"], scores["fold"], fmrs=settings.fmrs)
        results = found.to_dict()
        results.update(_subject_intervals(found, scores, settings))
        tables = (headline(results, f"Verification of {len(found.genuine):,} pairs"),)
        if settings.preset is not None:
            preset = get_preset(settings.preset)
            published = run_preset(scores["measure"], scores["genuine"], preset).to_dict(preset)
            if preset.xnorm:
                published["xnorm"] = _xnorm(scores)
            published["accuracy"]["interval"] = _preset_interval(published, len(found.genuine))
            results = {**results, "preset": published}
            tables = (preset_table(published), *tables)
        return ProtocolResult(
            results, tables, verification_plots(found.curve, found.threshold), _mistakes(found, scores)
        )


def _xnorm(scores: Scores) -> float | None:
    known = "view_norm" in scores
    return xnorm(scores["view_norm"], scores["reference"], scores["probe"]) if known else None


def _preset_interval(published: dict[str, Any], pairs: int) -> list[float]:
    """Wilson's interval of the preset's decisions (folds of sizes that differ by at most one)."""
    return list(wilson(min(pairs, round(published["accuracy"]["mean"] * pairs)), pairs))


def subject_names(pairs: Pairs) -> list[str]:
    """Who each picture shows, read off its name; empty where no reading agrees with the list.

    Tried in order: the first folder (`Name/file.jpg`), the folder it lies in, what stands before the last number
    (`Name_0001.jpg`), AgeDB's `12_Name_34_f.jpg`. A reading holds if each genuine pair shows one subject and each
    impostor pair two.
    """
    for reading in _SUBJECT_IN_NAME:
        found = [reading.match(name) for name in pairs.images]
        said = np.array([m.group(1) for m in found if m])
        if len(said) == len(found) and np.array_equal(said[pairs.reference] == said[pairs.probe], pairs.genuine):
            return said.tolist()
    return []


def subjects_of(pairs: Pairs) -> IntArray:
    """A subject number per picture by `subject_names`; −1 everywhere where the names do not tell; (N,)."""
    names = subject_names(pairs)
    numbers = {subject: i for i, subject in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names] or [-1] * len(pairs.images), np.int64)


def _subject_intervals(found: VerificationMetrics, scores: Scores, settings: EvaluationSettings) -> dict[str, Any]:
    """Bootstrap over subjects: where one person is in several pairs, Wilson's interval is too narrow."""
    reference, probe = scores["reference_subject"], scores["probe_subject"]
    if not settings.bootstrap or found.folds is None or min(reference.min(), probe.min()) < 0:
        return {"subject_bootstrap": None}
    correct = found.folds.match == found.genuine
    fmrs = tuple(f for f in settings.fmrs if found.tmr_at_fmr[rate_name(f)] is not None)
    similarity = np.where(np.isnan(found.similarities), -np.inf, found.similarities)
    drawn = bootstrap_subjects(
        similarity,
        found.genuine,
        correct,
        (reference, probe),
        fmrs=fmrs,
        replicates=settings.bootstrap,
        seed=settings.seed,
    )
    return {
        "subject_bootstrap": {
            "replicates": settings.bootstrap,
            "seed": settings.seed,
            "subjects": len(np.unique(np.concatenate([reference, probe]))),
            "accuracy_interval": list(drawn.interval(drawn.accuracy)),
            "tmr_at_fmr_interval": {name: list(drawn.interval(values)) for name, values in drawn.tmr.items()},
        }
    }


def headline(results: dict[str, Any], title: str) -> Table:
    """The table every verification prints."""
    boot = results.get("subject_bootstrap") or {}
    rows: list[tuple[str, str, str, str]] = []
    if results["accuracy"] is not None:
        a = results["accuracy"]
        spread = f"{100 * a['mean']:.2f} ± {100 * a['std']:.2f} %"
        rows.append(
            (
                f"accuracy, {len(a['folds'])} folds",
                spread,
                percent_range(a["interval"]),
                percent_range(boot.get("accuracy_interval")),
            )
        )
    unsupported, thin = [], []
    for name, detail in results["tmr_at_fmr_detail"].items():
        if detail is None:
            unsupported.append(name)
            continue
        if detail["false_matches"] < _FEW:
            thin.append(f"{name} ({detail['false_matches']})")
        by_subject = boot.get("tmr_at_fmr_interval", {}).get(name)
        rows.append(
            (f"TMR at FMR {name}", percent(detail["tmr"]), percent_range(detail["interval"]), percent_range(by_subject))
        )
    rows.append(("equal error rate", percent(results["eer"]), "", ""))
    rows.append(("area under the ROC", number(results["auc"], 5), "", ""))
    rows.append(("d′", number(results["d_prime"], 3), "", ""))
    which = "equal errors" if results["accuracy"] is None else "best accuracy"
    rows.append((f"threshold of {which}", number(results["threshold"]), "", ""))
    counts = results["comparisons"]
    note = f"{counts['genuine']:,} genuine and {counts['impostor']:,} impostor comparisons"
    if counts["failed_to_acquire"]:
        note += f"; {counts['failed_to_acquire']:,} with a picture that could not be acquired count as non-matches"
    accuracy: dict[str, Any] = results["accuracy"] or {}
    sizes = accuracy.get("fold_sizes", [])
    if len(set(sizes)) > 1:
        plain = percent(accuracy["mean_over_folds"])
        note += f"; folds of {min(sizes):,} to {max(sizes):,} pairs count by their pairs (each the same: {plain})"
    if thin:
        note += f"; thresholds that rest on fewer than {_FEW} false matches: FMR {', '.join(thin)}"
    if unsupported:
        note += f"; FMR {', '.join(unsupported)} would allow less than one false match: not supported by this set"
    return Table(title, ("figure", "value", "95 % (pairs)", "95 % (subjects)"), tuple(rows), note + ".")


def verification_plots(curve: ErrorCurve, threshold: float, *, label: str = "model") -> tuple[Plot, ...]:
    """ROC, DET and the two score distributions."""
    _, fmr, tmr = curve.roc(points=1500)
    first = int(np.searchsorted(fmr, 0.0, "right")) - 1  # of the points without a false match, the one of highest tmr
    floor = 0.5 / len(curve.impostor), 0.5 / len(curve.genuine)
    shown = np.maximum(fmr[first:], floor[0])
    roc = Plot(
        "roc",
        "ROC",
        "false match rate",
        "true match rate",
        (Series(label, shown, tmr[first:], "step"),),
        ("log", "linear"),
    )
    last = int(np.argmax(tmr == tmr.max())) + 1  # and of those with the highest tmr, the one of lowest fmr
    first = min(first, last - 1)
    shown = np.clip(fmr[first:last], floor[0], 1 - floor[0])
    missed = np.clip(1 - tmr[first:last], floor[1], 1 - floor[1])
    det = Plot(
        "det", "DET", "false match rate", "false non-match rate", (Series(label, shown, missed),), ("probit", "probit")
    )
    return roc, det, histogram(curve, threshold)


def histogram(curve: ErrorCurve, threshold: float, *, bins: int = 80) -> Plot:
    """Densities of genuine and impostor similarities with the threshold between them."""
    acquired = [a[np.isfinite(a)] for a in (curve.genuine, curve.impostor)]
    ends = [float(a[e]) for a in acquired if len(a) for e in (0, -1)]
    edges = np.linspace(min(ends, default=-1.0), max(ends, default=1.0) + 1e-9, bins + 1)
    series = [
        Series(name, edges, np.append(np.histogram(a, edges)[0] / max(len(a), 1) / np.diff(edges), 0.0), "fill")
        for name, a in zip(("genuine", "impostor"), acquired, strict=True)
    ]
    series.append(Series(f"threshold {threshold:.3f}", np.array([threshold]), np.array([0.0]), "marker"))
    return Plot("histogram", "Scores", "similarity (cosine)", "density", tuple(series))


def _mistakes(found: VerificationMetrics, scores: Scores) -> tuple[ErrorExample, ...]:
    """The wrong decisions farthest from the threshold, both kinds; nearest misses if there are no wrong ones."""
    similarity = found.similarities.astype(np.float64)
    margin = np.where(found.genuine, similarity - found.threshold, found.threshold - similarity)
    chosen = []
    for kind, group in ((found.genuine, "Taken for different people"), (~found.genuine, "Taken for one person")):
        indices = np.flatnonzero(kind & np.isfinite(margin) & (margin < 0))
        for i in indices[np.argsort(margin[indices], kind="stable")][:_MISTAKES]:
            caption = f"similarity {similarity[i]:.3f}"
            chosen.append(ErrorExample(int(scores["reference"][i]), int(scores["probe"][i]), caption, group))
    return tuple(chosen)
