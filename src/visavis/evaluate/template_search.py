"""1:N search of templates (IJB-B/C) in one or several galleries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.evaluate.embedding import Embedded
from visavis.evaluate.identification import Identification, Search, search
from visavis.evaluate.protocol import EvaluationProtocol, Outcome, Scores, Settings
from visavis.evaluate.report import Plot, Series
from visavis.evaluate.tables import Table, percent, percent_range
from visavis.evaluate.template_pairs import picture_weights
from visavis.evaluate.templates import Pooling, pool_templates
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

    def score(self, embedded: Embedded, settings: Settings) -> Scores:
        """Search every gallery."""
        weights = picture_weights(embedded, self.weights, use_norms=self.use_norms)
        vectors = pool_templates(embedded.vectors, self.pooling, weights=weights, templates=self.templates)
        scores = {}
        for name, (rows, subjects) in self.galleries.items():
            found = search(vectors[self.probe[0]], self.probe[1], vectors[rows], subjects)
            scores |= {f"{name}_{key}": getattr(found, key) for key in _FIELDS}
        return scores

    def judge(self, scores: Scores, settings: Settings) -> Outcome:
        """Figures by gallery and their mean."""
        found = {n: Identification(Search(*(scores[f"{n}_{k}"] for k in _FIELDS))) for n in self.galleries}
        return search_outcome(found, title=f"{self.name}: {len(self.probe[0]):,} probes")


def search_outcome(found: Mapping[str, Identification], *, title: str) -> Outcome:
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
    }
    return Outcome(results, (search_table(parts, title),), _cmc_plot(found))


def search_table(parts: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Hit rates and TPIR@FPIR, a column for each gallery."""
    single = len(parts) == 1
    columns = ("figure", *(("value", "95 %") if single else parts))
    rows: list[tuple[str, ...]] = []
    first = next(iter(parts.values()))
    for rank in first.get("cmc", {}):
        values = [percent(p["cmc"][rank]) for p in parts.values()]
        rows.append(
            (f"rank-{rank} hit rate", *values, *([percent_range(first["cmc_interval"][rank])] if single else []))
        )
    unsupported = []
    for rate in first.get("tpir_at_fpir", {}):
        details = [p["tpir_at_fpir_detail"][rate] for p in parts.values()]
        if any(d is None for d in details):
            unsupported.append(rate)
            continue
        values = [percent(d["tpir"]) for d in details]
        rows.append((f"TPIR at FPIR {rate}", *values, *([percent_range(details[0]["interval"])] if single else [])))
    counts = "; ".join(
        f"{'' if single else n + ': '}{p['searches']['mated']:,} mated, {p['searches']['non_mated']:,} non-mated"
        for n, p in parts.items()
    )
    note = f"searches: {counts}" + (
        f"; FPIR {', '.join(unsupported)}: not supported by so few non-mated searches" if unsupported else ""
    )
    return Table(title, columns, tuple(rows), note + ".")


def _cmc_plot(found: Mapping[str, Identification]) -> tuple[Plot, ...]:
    ranks = np.arange(1, 51, dtype=np.float64)
    series = tuple(Series(n if len(found) > 1 else "model", ranks, i.cmc(50)) for n, i in found.items() if i.mated)
    return (Plot("cmc", "CMC", "rank", "hit rate", series, ("log", "linear")),) if series else ()


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
