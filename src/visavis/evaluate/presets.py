"""PRESETS: the verification rules of four published systems, so that their numbers can be reproduced to the digit.

The default evaluation takes exact thresholds; these take the grids, the tie rules and the folds the sources print
(docs: reference systems, rows D11, S13, M12, A6). An embedder gives unit rows, so the ε that D11 and S13 add to the
product of norms divides by 1 + ε; the norms of the raw features, which A6 prints as XNorm, are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visavis.errors import ProtocolError, unknown_name
from visavis.evaluate.curves import Float64
from visavis.evaluate.tables import Table, number, percent
from visavis.types import BoolArray, FloatArray, IntArray
from visavis.vision.preprocessing import Flip

FOLDS = 10
VAL_FAR = 1e-3


@dataclass(frozen=True)
class Preset:
    """A published rule. `grid` is (start, stop, step) of np.arange; `best` which of several best thresholds is taken.

    A comparison matches when cosine > threshold, or when squared distance < threshold. `centre` takes each embedding's
    own mean from it before it is scaled to length 1. `val_step`: the grid of VAL@FAR, 0 for none.
    """

    name: str
    rows: str
    flip: Flip
    measure: Literal["cosine", "squared_l2"]
    grid: tuple[float, float, float]
    best: Literal["first", "last"]
    centre: bool = False
    epsilon: float = 0.0
    val_step: float = 0.0

    @property
    def thresholds(self) -> Float64:
        """The grid itself."""
        return np.arange(*self.grid)

    def describe(self) -> dict[str, Any]:
        """The rule in words, for the report."""
        start, stop, step = self.grid
        return {
            "name": self.name,
            "rows": self.rows,
            "measure": self.measure,
            "grid": f"{start:g} to {stop:g} by {step:g}, {len(self.thresholds)} thresholds",
            "best_of_equals": self.best,
            "folds": f"{FOLDS} contiguous, in the order of the list",
            "flip": self.flip,
            "centred": self.centre,
            "plus_minus": "standard deviation over folds, divisor K",
        }


PRESETS = {
    "deepid": Preset("deepid", "D11", "none", "cosine", (-1.0, 1.0, 0.005), "last", epsilon=1e-5),
    "sphereface": Preset("sphereface", "S13", "none", "cosine", (-1.0, 1.0, 0.005), "last", epsilon=1e-5),
    "massface": Preset("massface", "M12", "none", "squared_l2", (0, 4, 0.0025), "first", centre=True, val_step=0.001),
    "arcface": Preset("arcface", "A6, A7", "sum", "squared_l2", (0, 4, 0.01), "first", val_step=0.001),
}


@dataclass(frozen=True)
class PresetResult:
    """What a published rule gives: `accuracy` (K,) and `threshold` (K,) of the folds, and what else it prints."""

    accuracy: Float64
    threshold: Float64
    auc: float
    eer: float
    val: Float64 | None = None
    far: Float64 | None = None

    def to_dict(self, preset: Preset) -> dict[str, Any]:
        """For the JSON, with the rule itself."""
        found: dict[str, Any] = {
            **preset.describe(),
            "accuracy": {
                "mean": float(self.accuracy.mean()),
                "std": float(self.accuracy.std()),
                "folds": self.accuracy.tolist(),
            },
            "threshold": float(self.threshold.mean()),
            "fold_thresholds": self.threshold.tolist(),
            "auc": self.auc,
            "eer": self.eer,
        }
        if self.val is not None and self.far is not None:
            found["val"] = {
                "far_target": VAL_FAR,
                "mean": float(self.val.mean()),
                "std": float(self.val.std()),
                "far": float(self.far.mean()),
            }
        return found


def get_preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        ProtocolError: there is none of that name.
    """
    if name not in PRESETS:
        raise ProtocolError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]


def prepare_embeddings(embeddings: FloatArray, preset: Preset) -> FloatArray:
    """Centre rows (N, D) on their own mean and scale them to length 1 again, where the preset does (row M12)."""
    if not preset.centre:
        return embeddings
    centred = embeddings - embeddings.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def pair_measure(embeddings: FloatArray, reference: IntArray, probe: IntArray, preset: Preset) -> FloatArray:
    """What the preset compares with its grid: cosine/(1 + ε) or squared distance (N,); NaN where not acquired."""
    result = np.empty(len(reference), embeddings.dtype)
    for start in range(0, len(reference), 4096):
        part = slice(start, start + 4096)
        a, b = embeddings[reference[part]], embeddings[probe[part]]
        if preset.measure == "cosine":
            result[part] = np.vecdot(a, b) / (1 + preset.epsilon)
        else:
            a -= b
            result[part] = np.vecdot(a, a)
    return result


def run_preset(measure: FloatArray, genuine: BoolArray, preset: Preset) -> PresetResult:
    """Apply a published rule to what it measures, in the order of the list.

    Raises:
        ProtocolError: fewer pairs than folds.
    """
    if len(measure) < FOLDS:
        raise ProtocolError(f"preset {preset.name} cuts {FOLDS} folds, got {len(measure)} pairs")
    sign = 1.0 if preset.measure == "cosine" else -1.0  # as a similarity, so that both rules read alike
    score = np.where(np.isnan(measure), -np.inf, sign * measure.astype(np.float64))
    bounds = np.append(0, np.cumsum(contiguous_folds(len(score), FOLDS)))
    grid = preset.thresholds
    tm, fm, genuines = _counts(score, genuine, bounds, sign * grid)
    impostors = np.diff(bounds) - genuines
    right = tm + impostors[:, None] - fm  # (K, T): right decisions in each fold
    training = right.sum(axis=0) - right
    chosen = np.argmax(training, axis=1)
    if preset.best == "last":
        chosen = len(grid) - 1 - np.argmax(training[:, ::-1], axis=1)
    accuracy = right[np.arange(FOLDS), chosen] / np.diff(bounds)
    tpr = (tm / np.maximum(genuines, 1)[:, None]).mean(axis=0)
    fpr = (fm / np.maximum(impostors, 1)[:, None]).mean(axis=0)
    val = far = None
    if preset.val_step:
        val, far = _val_at_far(score, genuine, bounds, np.arange(0, 4, preset.val_step))
    return PresetResult(accuracy, grid[chosen], *_auc_and_eer(fpr, tpr), val, far)


def contiguous_folds(count: int, folds: int) -> npt.NDArray[np.int64]:
    """Sizes of contiguous folds; the first count % folds of them are one larger (as scikit-learn's KFold)."""
    sizes = np.full(folds, count // folds)
    sizes[: count % folds] += 1
    return sizes


def _counts(score: Float64, genuine: BoolArray, bounds: IntArray, grid: Float64) -> tuple[IntArray, IntArray, IntArray]:
    """Matches (score strictly above) of genuine and impostor pairs by fold and threshold (K, T), and genuines (K,)."""
    tm, fm = np.empty((FOLDS, len(grid)), np.int64), np.empty((FOLDS, len(grid)), np.int64)
    genuines = np.empty(FOLDS, np.int64)
    for k in range(FOLDS):
        part = slice(bounds[k], bounds[k + 1])
        for out, kind in ((tm, genuine[part]), (fm, ~genuine[part])):
            scores = np.sort(score[part][kind])
            out[k] = len(scores) - np.searchsorted(scores, grid, "right")
        genuines[k] = np.count_nonzero(genuine[part])
    return tm, fm, genuines


def _auc_and_eer(fpr: Float64, tpr: Float64) -> tuple[float, float]:
    """Area under, and equal errors of, the line through the fold-averaged points."""
    order = np.lexsort((tpr, fpr))
    x, y = fpr[order], tpr[order]
    area = float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)
    gap = x - (1 - y)
    last = int(np.searchsorted(gap, 0.0, "left"))
    if last == 0 or last == len(gap):
        return area, float(x[min(last, len(x) - 1)])
    share = -gap[last - 1] / (gap[last] - gap[last - 1])
    return area, float(x[last - 1] + share * (x[last] - x[last - 1]))


def _val_at_far(score: Float64, genuine: BoolArray, bounds: IntArray, grid: Float64) -> tuple[Float64, Float64]:
    """VAL and FAR of each fold at the distance where the other folds' FAR, drawn with straight lines, is `VAL_FAR`."""
    _, fm, genuines = _counts(score, genuine, bounds, -grid)
    impostors = np.diff(bounds) - genuines
    val, far = np.empty(FOLDS), np.empty(FOLDS)
    for k in range(FOLDS):
        others = (fm.sum(axis=0) - fm[k]) / max(int(impostors.sum() - impostors[k]), 1)
        threshold = 0.0
        if others.max() >= VAL_FAR:
            high = int(np.searchsorted(others, VAL_FAR, "left"))
            threshold = float(grid[high])
            if high and others[high] > VAL_FAR:
                share = (VAL_FAR - others[high - 1]) / (others[high] - others[high - 1])
                threshold = float(grid[high - 1] + share * (grid[high] - grid[high - 1]))
        part = slice(bounds[k], bounds[k + 1])
        match = -score[part] < threshold
        val[k] = np.count_nonzero(match & genuine[part]) / max(int(genuines[k]), 1)
        far[k] = np.count_nonzero(match & ~genuine[part]) / max(int(impostors[k]), 1)
    return val, far


def preset_table(found: dict[str, Any]) -> Table:
    """What the source system would print."""
    a = found["accuracy"]
    rows = [
        ("accuracy ± std", f"{100 * a['mean']:.3f} ± {100 * a['std']:.3f} %"),
        ("threshold (mean over folds)", number(found["threshold"])),
        ("AUC (fold-averaged ROC)", number(found["auc"], 5)),
        ("EER (fold-averaged ROC)", percent(found["eer"])),
    ]
    if "val" in found:
        v = found["val"]
        rows.append(
            (f"VAL@FAR={v['far_target']:g}", f"{percent(v['mean'])} ± {100 * v['std']:.2f} @ FAR {v['far']:.5f}")
        )
    note = f"Rule of rows {found['rows']}: {found['measure']}, {found['grid']}, {found['best_of_equals']} of equals."
    return Table(f"Preset {found['name']}", ("figure", "value"), tuple(rows), note)
