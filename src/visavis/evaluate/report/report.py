"""Report: what an evaluation found, frozen; as JSON, as the field's table, as a self-contained HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.evaluate.report.figures import ImagePair, Plot
from visavis.evaluate.report.tables import Table, percent, to_tex


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    `results` holds the figures under the JSON's own keys; `context` where they come from (data, failures to acquire,
    machine, versions, seconds); `scores` the arrays the figures were computed from; `compares` is true where it is
    about several models; `warnings` say why the figures mean less than they seem to, and stand before them everywhere.
    """

    protocol: str
    model: Mapping[str, Any]
    results: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    images: tuple[ImagePair, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    compares: bool = False
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n\n".join([*self.warnings, *(table.to_text() for table in self.tables)])

    def to_dict(self) -> dict[str, Any]:
        """The JSON's values: `protocol`, `model`, the warnings, the results, the context."""
        head = {"protocol": self.protocol, "model": self.model, "warnings": self.warnings}
        return plain({**head, **self.results, **self.context})

    def to_json(self) -> str:
        """JSON text; a figure that does not exist is null, never NaN."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """One page with its plots and pictures inside: no network, no script."""
        from visavis.evaluate.report.page import render

        name = str(self.model.get("name", "model"))
        return render(
            title=f"{name}: {self.protocol}" if self.compares else f"{name} on {self.protocol}",
            subtitle=_subtitle(self.context),
            warnings=self.warnings,
            key=key_figures(self.results),
            tables=self.tables,
            plots=self.plots,
            images=self.images,
            facts=_facts(self),
            images_title="The hardest pairs" if self.compares else "Most confident mistakes",
        )

    def to_markdown(self) -> str:
        """The tables in Markdown."""
        warnings = [f"**{warning}**" for warning in self.warnings]
        return "\n\n".join([*warnings, *(table.to_markdown() for table in self.tables)]) + "\n"

    def to_latex(self) -> str:
        """The tables in LaTeX (booktabs)."""
        warnings = [rf"\textbf{{{to_tex(warning)}}}" for warning in self.warnings]
        return "\n\n".join([*warnings, *(table.to_latex() for table in self.tables)]) + "\n"

    def with_additions(
        self, *, tables: tuple[Table, ...] = (), plots: tuple[Plot, ...] = (), context: Mapping[str, Any] | None = None
    ) -> Report:
        """A copy with more tables, plots and context behind its own."""
        return replace(
            self,
            tables=(*self.tables, *tables),
            plots=(*self.plots, *plots),
            context={**self.context, **(context or {})},
        )


def plain(value: Any) -> Any:
    """NumPy values, tuples and non-finite numbers as what JSON knows."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    if isinstance(value, (np.integer, int)):
        return int(value)
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    return value


def key_figures(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The three or four figures a reader looks for first."""
    key = []
    accuracy = results.get("accuracy")
    if isinstance(accuracy, Mapping):
        key.append(("accuracy", percent(accuracy["mean"])))
    ranks = [n for n in ("rank_1", "top_1") if isinstance(results.get(n), float)]
    key += [(n.replace("_", "-"), percent(results[n])) for n in ranks]
    rates = {k: v for k, v in (results.get("tmr_at_fmr") or {}).items() if v is not None}
    if rates:
        name, value = list(rates.items())[-1]
        key.append((f"TMR at FMR {name}", percent(value)))
    if isinstance(results.get("eer"), float):
        key.append(("equal error rate", percent(results["eer"])))
    if isinstance(results.get("auc"), float):
        key.append(("area under the ROC", f"{results['auc']:.4f}"))
    return key[:4]


def _subtitle(context: Mapping[str, Any]) -> str:
    data = context.get("data", {})
    parts = [f"{value:,} {name}" for name, value in data.items() if isinstance(value, int) and name != "folds_in_list"]
    time = context.get("environment", {}).get("time", "")
    return " · ".join([*parts, time.replace("T", " ").replace("+00:00", " UTC")])


def _facts(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Failures, model card, and how to do it again."""
    context = report.context
    failures = context.get("failures_to_acquire", {})
    listed = [(name, reason) for name, reason in list(failures.get("reasons", {}).items())[:50]]
    if failures.get("images", 0) > len(listed):
        listed.append(("…", f"{failures['images'] - len(listed):,} more in the JSON"))
    card = dict(report.model.get("card", {}))
    known = {k: v for k, v in report.model.items() if k != "card"}
    if "preprocess" in known:  # which says the flip that was used
        known.pop("flip", None)
    model = [*known.items(), *((k, v) for k, v in card.items() if k not in known)]
    environment = context.get("environment", {})
    data = context.get("data", {})
    repeat = [
        ("command", environment.get("command", "")),
        *((k, v) for k, v in data.items() if k in ("source", "lists", "comparisons_digest")),
        ("scores", context.get("scores", "")),
        *context.get("settings", {}).items(),
        ("versions", ", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items())),
        *(environment.get("machine", {})).items(),
        *((f"seconds, {k}", f"{v:.2f}") for k, v in context.get("seconds", {}).items() if isinstance(v, float)),
        ("cached embeddings", context.get("seconds", {}).get("cached_embeddings", "")),
    ]
    return [
        ("Pictures that could not be acquired", listed),
        ("Model card", [(_words(k), _show(v)) for k, v in model if v not in ("", {}, None) and not report.compares]),
        ("To reproduce", [(_words(k), _show(v)) for k, v in repeat if v not in ("", None)]),
    ]


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(k)} {_show(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " × ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return str(value)
