"""The parity gate: an exported file, run by its own runtime, must embed faces as the weights do."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError, ModelFormatError
from visavis.types import ByteArray, Embedder
from visavis.vision.images import write
from visavis.vision.preprocessing import PreprocessSpec, fit_crop

# max 1 − cos an export may show: float32 rounding, half-precision rounding; int8 is judged by pairs.
TOLERANCES = {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.2}
# How far int8 may move pairs' similarities, in parts of their spread, where no list says which pairs are genuine. The
# published MobileFaceNet at 0.26–0.35 lost nothing on 600 real pairs; at 0.99 (ranges of dark images) 8 points.
SCORE_NOISE = 0.5


@dataclass(frozen=True)
class Crops:
    """Aligned crops a parity check runs on: uint8 (N, H, W, 3) of the network's size, their names and where from."""

    images: ByteArray
    names: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Parity:
    """How far an export is from its reference over some crops: 1 − cos per crop, in float64 from unit rows.

    1 − cos(a, b) = ½·‖a − b‖²

    `score_noise` is how far the similarities of all pairs of crops are moved, in parts of their own spread:

        √(mean over pairs of (s′ − s)²) / std of s;  NaN of fewer than 3 crops
    """

    distances: npt.NDArray[np.float64]
    crops: Crops
    tolerance: float
    runtime: str
    score_noise: float = math.nan

    @property
    def maximum(self) -> float:
        """The worst 1 − cos."""
        return float(self.distances.max())

    @property
    def worst(self) -> int:
        """Which crop is worst."""
        return int(self.distances.argmax())

    @property
    def holds(self) -> bool:
        """Whether the worst is within the tolerance; NaN never is."""
        return bool(self.maximum <= self.tolerance)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a card."""
        return {
            "max_1_minus_cos": self.maximum,
            "mean_1_minus_cos": float(self.distances.mean()),
            "tolerance": self.tolerance,
            "score_noise": self.score_noise if math.isfinite(self.score_noise) else None,
            "crops": len(self.distances),
            "crops_from": self.crops.origin,
            "worst": self.crops.names[self.worst],
            "runtime": self.runtime,
        }


def compare(reference: Embedder, candidate: Embedder, crops: Crops, *, tolerance: float, runtime: str = "") -> Parity:
    """Embed the crops with both and compare.

    Raises:
        ModelFormatError: the candidate gives embeddings of another length.
    """
    a = np.asarray(reference.embed(crops.images), np.float64)
    b = np.asarray(candidate.embed(crops.images), np.float64)
    if a.shape != b.shape:
        raise ModelFormatError(f"the export gives embeddings {b.shape}, its reference {a.shape}")
    distances = 0.5 * ((a - b) ** 2).sum(1)
    return Parity(np.where(np.isfinite(distances), distances, np.inf), crops, tolerance, runtime, _score_noise(a, b))


def _score_noise(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    if len(a) < 3:
        return math.nan
    first, second = np.triu_indices(len(a), 1)
    before, after = ((x @ x.T)[first, second] for x in (a, b))
    return float(np.sqrt(np.mean((after - before) ** 2)) / max(float(before.std()), 1e-12))


def require_steady_scores(parity: Parity, *, what: str) -> None:
    """Refuse an export that moves the similarities of pairs too far; for int8 where no list of pairs judges it.

    Raises:
        ModelFormatError: beyond SCORE_NOISE, or too few crops to tell.
    """
    if not parity.score_noise <= SCORE_NOISE:
        raise ModelFormatError(
            f"{what}: moves the similarities of pairs of {len(parity.distances)} crops by {parity.score_noise:.2f} of "
            f"their spread, allowed are {SCORE_NOISE:g}; no file was written; calibrate on pictures like those it will "
            "see (--calibrate SRC), or judge it on pairs (--pairs FILE)"
        )


def require(parity: Parity, *, what: str, image: str | os.PathLike[str]) -> None:
    """Save the worst picture and refuse the export when its parity does not hold.

    Raises:
        ModelFormatError: beyond the tolerance; names the worst picture and where it was saved.
    """
    if parity.holds:
        return
    path = Path(image)
    write(path, parity.crops.images[parity.worst])
    raise ModelFormatError(
        f"{what}: does not embed as its reference: max 1 − cos {parity.maximum:.2e} over {len(parity.distances)} crops "
        f"(allowed {parity.tolerance:g}); the worst is {parity.crops.names[parity.worst]}, saved as {path}; "
        "no file was written"
    )


def crops_of(data: str | os.PathLike[str] | None, spec: PreprocessSpec, *, count: int = 64, seed: int = 0) -> Crops:
    """Crops for a parity check or calibration: `count` evenly spaced ones of a picture source, else generated faces.

    Args:
        data: any picture source; generated faces when None.
        spec: the network's; crops are fitted to it.
        count: how many at most.
        seed: which people are generated.

    Raises:
        DataError: no readable picture, or crops that do not fit the network.
    """
    if data is None:
        return _generated(spec, count, seed)
    from visavis.data.sources import open_source

    source = open_source(data)
    indices = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)) if len(source) else []
    images, names, failed = [], [], []
    for i in indices:
        try:
            images.append(fit_crop(source.image(int(i)), spec))
            names.append(source.names[int(i)])
        except DataError as error:
            failed.append(str(error))
    if not images:
        raise DataError(failed[0] if failed else f"{data}: holds no picture to check the export on")
    return Crops(np.stack(images), tuple(names), f"{os.path.basename(os.path.normpath(os.fspath(data)))}")


def _generated(spec: PreprocessSpec, count: int, seed: int) -> Crops:
    from visavis.synthetic import face

    faces = [face(seed, i // 2, i % 2)[0] for i in range(count)]
    names = tuple(f"generated face, seed {seed}, identity {i // 2}, picture {i % 2}" for i in range(count))
    return Crops(np.stack([fit_crop(f, spec) for f in faces]), names, f"generated faces, seed {seed}")


def unnamed(images: ByteArray, names: Sequence[str] = ()) -> Crops:
    """Crops without a source, for callers who have their own; uint8 (N, H, W, 3)."""
    return Crops(images, tuple(names) or tuple(f"crop {i}" for i in range(len(images))), "crops given")
