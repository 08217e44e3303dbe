"""Report: what an evaluation found, frozen; as JSON, as the field's table, as a self-contained HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.evaluate.tables import Table


@dataclass(frozen=True)
class Series:
    """One line, step or filled shape of a plot. `style`: line, step, fill, points, marker (vertical at x[0]).

    Points may have an interval each: `interval` (2, N), its lower and upper ends.
    """

    label: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    style: str = "line"
    interval: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Plot:
    """The data of one figure; `scales` names the x and the y axis' scale: linear, log or probit."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    scales: tuple[str, str] = ("linear", "linear")
    note: str = ""


@dataclass(frozen=True)
class PicturePair:
    """Two crops (JPEG bytes) and what the model made of them."""

    reference: bytes
    probe: bytes
    caption: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    `results` holds the figures under the JSON's own keys; `context` where they come from (data, failures to acquire,
    machine, versions, seconds); `scores` the arrays the figures were computed from.
    """

    protocol: str
    model: Mapping[str, Any]
    results: Mapping[str, Any]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[PicturePair, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return "\n\n".join(table.to_text() for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """The JSON's values: `protocol`, `model`, the results, the context."""
        return plain({"protocol": self.protocol, "model": self.model, **self.results, **self.context})

    def to_json(self) -> str:
        """JSON text; a figure that does not exist is null, never NaN."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_html(self) -> str:
        """One page with its plots and pictures inside: no network, no script."""
        from visavis.evaluate.page import render_report

        return render_report(self)

    def to_markdown(self) -> str:
        """The tables in Markdown."""
        return "\n\n".join(table.to_markdown() for table in self.tables) + "\n"

    def to_latex(self) -> str:
        """The tables in LaTeX (booktabs)."""
        return "\n\n".join(table.to_latex() for table in self.tables) + "\n"

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
