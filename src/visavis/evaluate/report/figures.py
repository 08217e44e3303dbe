"""What a report shows besides tables: the data of a plot, and pairs of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
class ImagePair:
    """Two crops (JPEG bytes) and what the model made of them."""

    reference: bytes
    probe: bytes
    caption: tuple[str, ...]
    group: str = ""
