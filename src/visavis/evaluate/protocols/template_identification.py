"""1:N search of templates (IJB-B/C) in one or several galleries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.template_verification import image_weights
from visavis.evaluate.report.figures import Plot, Series
from visavis.evaluate.report.tables import Table, percent, percent_range
from visavis.metrics.fusion import Pooling, pool_templates
from visavis.metrics.identification import IdentificationMetrics, Search, search
from visavis.types import FloatArray, IntArray

Part = tuple[IntArray, IntArray]  # templates and their subjects
_FIELDS = ("own", "rank", "other", "mated")


@dataclass(frozen=True)
class TemplateSearchProtocol(EvaluationProtocol):
    """Probes against each gallery: closed-set ranks of the enrolled ones, TPIR@FPIR with the others as non-mated."""

    images: tuple[str, ...]
    pooling: Pooling
    templates: int
    probe: Part
    galleries: Mapping[str, Part]
    weights: FloatArray | None = None
    use_norms: bool = False
    name: str = "template-search"

    def describe(self) -> dict[str, Any]:
        """Counts of pictures, templates, probes and gallery entries."""
        sizes = {f"gallery_{k}": len(v[0]) for k, v in self.galleries.items()}
        return {"images": len(self.images), "templates": self.templates, "probes": len(self.probe[0]), **sizes}

    def score(self, embedded: Embeddings, settings: EvaluationSettings) -> Scores:
        """Search every gallery."""
        weights = image_weights(embedded, self.weights, use_norms=self.use_norms)
        vectors = pool_templates(embedded.vectors, self.pooling, weights=weights, templates=self.templates)
        scores: dict[str, Any] = {"probe_subject": self.probe[1]}
        for name, (rows, subjects) in self.galleries.items():
            found = search(vectors[self.probe[0]], self.probe[1], vectors[rows], subjects)
            scores |= {f"{name}_{key}": getattr(found, key) for key in _FIELDS}
        return scores

    def compute_metrics(self, scores: Scores, settings: EvaluationSettings) -> ProtocolResult:
        """Figures by gallery and their mean."""
        drawn = (scores["probe_subject"], settings.bootstrap, settings.seed)
        found = {
            n: IdentificationMetrics(Search(*(scores[f"{n}_{k}"] for k in _FIELDS)), *drawn) for n in self.galleries
        }
        return search_outcome(found, title=f"{self.name}: {len(self.probe[0]):,} probes")


def search_outcome(found: Mapping[str, IdentificationMetrics], *, title: str) -> ProtocolResult:
    """The figures of searches in several galleries; top-level figures are means over galleries."""
    parts = {name: identification.to_dict() for name, identification in found.items()}
    results: dict[str, Any] = {"galleries": parts} if len(parts) > 1 else {}
    first = next(iter(parts.values()))
    for key in ("rank_1", "rank_5"):
        if all(key in p for p in parts.values()):
            results[key] = float(np.mean([p[key] for p in parts.values()]))
    for key in ("cmc", "tpir_at_fpir"):
        if all(key in p for p in parts.values()):
            results[key] = {k: _mean([p[key][k] for p in parts.values()]) for k in first[key]}
    results |= {k: v for k, v in first.items() if k not in results} if len(parts) == 1 else {}
    results["comparisons"] = {
        "searches": sum(i.mated + i.non_mated for i in found.values()),
        "mated": sum(i.mated for i in found.values()),
        "non_mated": sum(i.non_mated for i in found.values()),
        "failed_to_acquire": sum(i.failed for i in found.values()),
    }
    failed = results["comparisons"]["failed_to_acquire"]
    return ProtocolResult(results, (search_table(parts, title, failed=failed),), _cmc_plot(found))


def search_table(parts: Mapping[str, Mapping[str, Any]], title: str, *, failed: int = 0) -> Table:
    """Hit rates and TPIR@FPIR, a column for each gallery."""
    single = len(parts) == 1
    columns = ("figure", *(("value", "95 % (probes)", "95 % (subjects)") if single else parts))
    rows: list[tuple[str, ...]] = []
    first = next(iter(parts.values()))

    def add(label: str, values: list[float], pairs: list[Any], subjects: list[Any]) -> None:
        """One value with two intervals, or a column for each gallery with the wider-founded one in brackets."""
        if single:
            rows.append((label, percent(values[0]), percent_range(pairs[0]), percent_range(subjects[0])))
            return
        shown = zip(values, pairs, subjects, strict=True)
        rows.append((label, *(f"{percent(v)} ({percent_range(s or p, 1)})" for v, p, s in shown)))

    for rank in first.get("cmc", {}):
        found = [(p["cmc"][rank], p["cmc_interval"][rank], p["cmc_interval_subjects"][rank]) for p in parts.values()]
        add(f"rank-{rank} hit rate", *map(list, zip(*found, strict=True)))
    unsupported = []
    for rate in first.get("tpir_at_fpir", {}):
        details = [p["tpir_at_fpir_detail"][rate] for p in parts.values()]
        if any(d is None for d in details):
            unsupported.append(rate)
            continue
        found = [(d["tpir"], d["interval"], d["interval_subjects"]) for d in details]
        add(f"TPIR at FPIR {rate}", *map(list, zip(*found, strict=True)))
    counts = "; ".join(
        f"{'' if single else n + ': '}{p['searches']['mated']:,} mated, {p['searches']['non_mated']:,} non-mated"
        for n, p in parts.items()
    )
    note = f"searches: {counts}" + (
        f"; FPIR {', '.join(unsupported)}: not supported by so few non-mated searches" if unsupported else ""
    )
    if failed:
        note += f"; {failed:,} with a picture that could not be acquired find nobody"
    if not single:
        note += "; in brackets 95 % over subjects" if first["cmc_interval_subjects"]["1"] else "; in brackets 95 %"
    return Table(title, columns, tuple(rows), note + ".")


def _cmc_plot(found: Mapping[str, IdentificationMetrics]) -> tuple[Plot, ...]:
    ranks = np.arange(1, 51, dtype=np.float64)
    series = tuple(Series(n if len(found) > 1 else "model", ranks, i.cmc(50)) for n, i in found.items() if i.mated)
    return (Plot("cmc", "CMC", "rank", "hit rate", series, ("log", "linear")),) if series else ()


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
