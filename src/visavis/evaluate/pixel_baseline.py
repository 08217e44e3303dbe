"""The row every figure should stand beside: what the raw pixels alone achieve on the same protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.evaluate.report.tables import Table, number, percent
from visavis.metrics.similarity import unit_rows
from visavis.types import ByteArray
from visavis.vision.images import resize


class PixelEmbedder:
    """Cosine of aligned pixels: the crop shrunk to 32 × 32 RGB, its mean taken away, scaled to length 1."""

    side = 32
    dim = 3 * side * side

    def embed(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """uint8 (N, H, W, 3) -> float32 (N, 3072), unit rows (a picture of one color gives zeros)."""
        small = np.stack([resize(crop, (self.side, self.side)) for crop in crops]).reshape(len(crops), -1)
        rows = small.astype(np.float32)
        rows -= rows.mean(axis=1, keepdims=True)
        return unit_rows(rows)

    def measure(self, crops: ByteArray) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The same rows, and that they have length 1; (N, H, W, 3) -> (N, D) and (N,)."""
        return self.embed(crops), np.ones(len(crops), np.float32)


def baseline_table(model: Mapping[str, Any], pixels: Mapping[str, Any]) -> Table:
    """Model and raw pixels side by side, for the figures both have."""
    rows = []
    for name, show in (("accuracy", _accuracy), ("eer", percent), ("auc", lambda v: number(v, 4)), ("rank_1", percent)):
        if model.get(name) is not None and pixels.get(name) is not None:
            rows.append((_NAMES[name], show(model[name]), show(pixels[name])))
    for fmr, value in (model.get("tmr_at_fmr") or {}).items():
        if value is not None:
            rows.append((f"TMR at FMR {fmr}", percent(value), percent(pixels["tmr_at_fmr"].get(fmr))))
    return Table("Beside the raw pixels", ("figure", "model", "raw pixels"), tuple(rows))


_NAMES = {"accuracy": "accuracy", "eer": "equal error rate", "auc": "area under the ROC", "rank_1": "rank-1 rate"}


def _accuracy(value: Any) -> str:
    return percent(value["mean"] if isinstance(value, Mapping) else value)
