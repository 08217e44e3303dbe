"""Figures as SVG text (for pages) or PNG bytes: light, restrained, readable at the width of a phone."""

from __future__ import annotations

import io
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visavis.evaluate.report.figures import Plot, Series
from visavis.runtimes import import_runtime

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colors that differ in lightness as well as hue (Okabe and Ito 2008), in the order lines take them.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555", "#8B5FBF")
_FILLS = {"genuine": "#0072B2", "impostor": "#D55E00"}
_INK, _GRID = "#333a44", "#e6e9ee"
_PROBIT_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99)
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#b6bdc8",
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "svg.fonttype": "none",
}


def to_svg(plot: Plot) -> str:
    """The figure as an `<svg>` element, to be put into a page."""
    matplotlib = import_runtime("matplotlib")
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": plot.name}):
        buffer = io.StringIO()
        draw(plot).savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{plot.title}" ', 1)


def to_png(plot: Plot, *, dpi: int = 150) -> bytes:
    """The figure as a PNG file."""
    matplotlib = import_runtime("matplotlib")
    with matplotlib.rc_context(_STYLE):
        buffer = io.BytesIO()
        draw(plot).savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def draw(plot: Plot) -> Figure:
    """Draw a plot's series on one pair of axes."""
    figure = import_runtime("matplotlib.figure").Figure(figsize=(5.2, 3.7), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    for index, series in enumerate(plot.series):
        _draw_series(axes, series, plot, COLORS[index % len(COLORS)])
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    _scale(axes, "x", plot)
    _scale(axes, "y", plot)
    if plot.name in ("det", "reliability"):
        _diagonal(axes)
    if len(plot.series) > 1:
        axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def _draw_series(axes: Axes, series: Series, plot: Plot, color: str) -> None:
    x, y = (_transform(v, s) for v, s in ((series.x, plot.scales[0]), (series.y, plot.scales[1])))
    if series.style == "marker":
        axes.axvline(float(x[0]), color=_INK, linewidth=1, linestyle=(0, (4, 3)), label=series.label)
    elif series.style == "fill":
        color = next((c for name, c in _FILLS.items() if series.label.startswith(name)), color)
        axes.fill_between(x, y, step="post", color=color, alpha=0.35, linewidth=0)
        axes.step(x, y, where="post", color=color, linewidth=1.2, label=series.label)
    elif series.style == "step":
        axes.step(x, y, where="post", color=color, linewidth=1.6, label=series.label)
    elif series.style == "points":
        if series.interval is not None:
            axes.vlines(x, *series.interval, color=color, linewidth=1.1, alpha=0.6)
        axes.plot(x, y, "o", color=color, markersize=4.5, label=series.label)
    else:
        axes.plot(x, y, color=color, linewidth=1.6, label=series.label)


def _transform(values: npt.NDArray[Any], scale: str) -> npt.NDArray[np.float64]:
    if scale != "probit":
        return np.asarray(values, np.float64)
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(v)) for v in values])


def _scale(axes: Axes, which: str, plot: Plot) -> None:
    scale = plot.scales["xy".index(which)]
    if scale == "log":
        getattr(axes, f"set_{which}scale")("log")
    elif scale == "probit":
        values = np.concatenate([getattr(s, which) for s in plot.series])
        low, high = float(values.min()), float(values.max())
        normal = NormalDist()
        span = normal.inv_cdf(high) - normal.inv_cdf(low)
        ticks: list[float] = []
        for t in _PROBIT_TICKS:  # as many as do not run into each other
            if low <= t <= high and (not ticks or normal.inv_cdf(t) - normal.inv_cdf(ticks[-1]) > span / 9):
                ticks.append(t)
        ticks = ticks or [low, high]
        getattr(axes, f"set_{which}ticks")([normal.inv_cdf(t) for t in ticks], [_rate_label(t) for t in ticks])


def _rate_label(rate: float) -> str:
    return f"{100 * rate:g} %" if rate >= 1e-3 else f"$10^{{{round(np.log10(rate))}}}$"


def _diagonal(axes: Axes) -> None:
    """Equal errors, or perfect calibration."""
    low = max(axes.get_xlim()[0], axes.get_ylim()[0])
    high = min(axes.get_xlim()[1], axes.get_ylim()[1])
    if low < high:
        axes.plot([low, high], [low, high], color="#b6bdc8", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
