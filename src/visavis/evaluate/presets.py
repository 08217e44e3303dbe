"""PRESETS: the verification rules of four published systems, so that their numbers can be reproduced to the digit.

The default evaluation takes exact thresholds; these take the grids, the tie rules and the folds the sources print
(docs: reference systems, rows D11, S13, M12, A6). An embedder gives unit rows, so the ε that D11 and S13 add to the
product of norms divides by 1 + ε. A6's XNorm needs an embedder that also tells the lengths of its raw features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from visavis.errors import ProtocolError, unknown_name
from visavis.evaluate.report.tables import Table, number, percent
from visavis.metrics.error_rates import Float64
from visavis.metrics.kfold import contiguous_folds
from visavis.metrics.verification import pair_similarities
from visavis.types import BoolArray, FloatArray, IntArray
from visavis.vision.preprocessing import Flip

FOLDS = 10
VAL_FAR = 1e-3


@dataclass(frozen=True)
class Preset:
    """A published rule. `grid` is (start, stop, step) of np.arange; `best` which of several best thresholds is taken.

    A comparison matches when cosine > threshold, or when squared distance < threshold. `center` takes each embedding's
    own mean from it before it is scaled to length 1. `val_step`: the grid of VAL@FAR, 0 for none. `xnorm`: the mean
    length of the raw features is printed.
    """

    name: str
    rows: str
    flip: Flip
    measure: Literal["cosine", "squared_l2"]
    grid: tuple[float, float, float]
    best: Literal["first", "last"]
    center: bool = False
    epsilon: float = 0.0
    val_step: float = 0.0
    xnorm: bool = False

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
            "centered": self.center,
            "plus_minus": "standard deviation over folds, divisor K",
        }


PRESETS = {
    "deepid": Preset("deepid", "D11", "none", "cosine", (-1.0, 1.0, 0.005), "last", epsilon=1e-5),
    "sphereface": Preset("sphereface", "S13", "none", "cosine", (-1.0, 1.0, 0.005), "last", epsilon=1e-5),
    "massface": Preset("massface", "M12", "none", "squared_l2", (0, 4, 0.0025), "first", center=True, val_step=0.001),
    "arcface": Preset("arcface", "A6, A7", "sum", "squared_l2", (0, 4, 0.01), "first", val_step=0.001, xnorm=True),
}


@dataclass(frozen=True)
class PresetResult:
    """What a published rule gives: `accuracy` (K,) and `threshold` (K,) of the folds, and what else it prints.

    `one_sided` folds hold only genuine or only impostor pairs: averages of rates over folds then mean nothing.
    """

    accuracy: Float64
    threshold: Float64
    auc: float
    eer: float
    val: Float64 | None = None
    far: Float64 | None = None
    one_sided: int = 0

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
            "one_sided_folds": self.one_sided,
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


def pair_measure(
    embeddings: FloatArray, reference: IntArray, probe: IntArray, preset: Preset, *, dots: FloatArray | None = None
) -> Float64:
    """What the preset compares with its grid: cosine/(1 + ε) or squared distance (N,); NaN where not acquired.

        ‖a − b‖² = ‖a‖² + ‖b‖² − 2·⟨a, b⟩,        ⟨a − ā, b − b̄⟩ = ⟨a, b⟩ − D·ā·b̄   (centered, row M12)

    so that all presets share the `dots` ⟨a, b⟩ (N,) and no vector is gathered twice.
    """
    dots = pair_similarities(embeddings, reference, probe) if dots is None else dots
    dots = np.asarray(dots, np.float64)
    if preset.measure == "cosine":
        return dots / (1 + preset.epsilon)
    squares = np.asarray(np.vecdot(embeddings, embeddings), np.float64)
    if not preset.center:
        return np.maximum(squares[reference] + squares[probe] - 2 * dots, 0.0)
    return 2 - 2 * centered_cosine(embeddings, reference, probe, dots)


def centered_cosine(embeddings: FloatArray, reference: IntArray, probe: IntArray, dots: FloatArray) -> Float64:
    """Cosine (N,) of rows from which their own mean is taken, from the plain `dots` (N,)."""
    dim = embeddings.shape[1]
    squares = np.asarray(np.vecdot(embeddings, embeddings), np.float64)
    mean = embeddings.mean(axis=1, dtype=np.float64)
    length = np.sqrt(np.maximum(squares - dim * mean * mean, 1e-24))
    cosine = (np.asarray(dots, np.float64) - dim * mean[reference] * mean[probe]) / (length[reference] * length[probe])
    return np.minimum(cosine, 1.0)


def run_preset(measure: FloatArray, genuine: BoolArray, preset: Preset) -> PresetResult:
    """Apply a published rule to what it measures, in the order of the list.

    Shapes: `measure` and `genuine` (N,).

    Raises:
        ProtocolError: fewer pairs than folds.
    """
    if len(measure) < FOLDS:
        raise ProtocolError(f"preset {preset.name} cuts {FOLDS} folds, got {len(measure)} pairs")
    bounds = np.append(0, np.cumsum(np.bincount(contiguous_folds(len(measure), FOLDS))))
    grid = preset.thresholds
    tm, fm, genuines = _counts(measure, genuine, bounds, grid, higher=preset.measure == "cosine")
    impostors = np.diff(bounds) - genuines
    right = tm + impostors[:, None] - fm  # (K, T): right decisions in each fold
    training = right.sum(axis=0) - right
    chosen = np.argmax(training, axis=1)
    if preset.best == "last":
        chosen = len(grid) - 1 - np.argmax(training[:, ::-1], axis=1)
    accuracy = right[np.arange(FOLDS), chosen] / np.diff(bounds)
    tpr = (tm / np.maximum(genuines, 1)[:, None]).mean(axis=0)
    fpr = (fm / np.maximum(impostors, 1)[:, None]).mean(axis=0)
    one_sided = int(np.count_nonzero((genuines == 0) | (impostors == 0)))
    val = far = None
    if preset.val_step:
        val, far = _val_at_far(measure, genuine, bounds, np.arange(0, 4, preset.val_step))
    return PresetResult(accuracy, grid[chosen], *_auc_and_eer(fpr, tpr), val, far, one_sided)


def xnorm(view_norms: FloatArray, reference: IntArray, probe: IntArray) -> float | None:
    """Row A6's XNorm: the mean length of the raw features of all pictures of the list, both mirrored views.

        XNorm = 1/(2N·V) Σ_pairs Σ_{picture of the pair} Σ_views ‖f(view)‖

    A picture counts as often as the list names it, since the source's sets store it that often.

    Args:
        view_norms: (images,), the mean over a picture's views; NaN where it is not known or was not acquired.
        reference: places (N,) in `view_norms`.
        probe: the same of the probes.

    Returns:
        None where no picture's length is known.

    Source: insightface `verification.test`.
    """
    lengths = np.concatenate([view_norms[reference], view_norms[probe]]).astype(np.float64)
    known = lengths[np.isfinite(lengths)]
    return float(known.mean()) if len(known) else None


def _counts(
    measure: FloatArray, genuine: BoolArray, bounds: IntArray, grid: Float64, *, higher: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """Matches of genuine and of impostor pairs by fold and threshold (K, T), and genuine pairs by fold (K,).

    A pair matches at threshold t when its measure is above it (`higher`) or below it, never when equal. Each pair is
    put once to its place in the grid; running sums over the grid then give all thresholds.
    """
    size = len(grid)
    fold = np.repeat(np.arange(FOLDS), np.diff(bounds))
    place = np.searchsorted(grid, measure, "left" if higher else "right")  # NaN comes last
    if higher:
        place = np.where(np.isnan(measure), 0, place)
    cell = (fold * 2 + genuine) * (size + 1) + place
    running = np.cumsum(np.bincount(cell, minlength=2 * FOLDS * (size + 1)).reshape(FOLDS, 2, size + 1), axis=2)
    matched = running[:, :, -1:] - running if higher else running
    return matched[:, 1, :size], matched[:, 0, :size], running[:, 1, -1]


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


def _val_at_far(measure: FloatArray, genuine: BoolArray, bounds: IntArray, grid: Float64) -> tuple[Float64, Float64]:
    """VAL and FAR of each fold at the distance where the other folds' FAR, drawn with straight lines, is `VAL_FAR`."""
    _, fm, genuines = _counts(measure, genuine, bounds, grid, higher=False)
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
        match = np.asarray(measure[part] < threshold)
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
    if found["one_sided_folds"]:
        note += (
            f" {found['one_sided_folds']} of {FOLDS} folds hold only genuine or only impostor pairs, as the list is "
            "ordered: this rule's AUC, EER and VAL, which average rates over folds, mean nothing here."
        )
    if "xnorm" in found:
        rows.append(("XNorm (mean length of raw features)", number(found["xnorm"], 6)))
        if found["xnorm"] is None:
            note += (
                " XNorm is not known: the embedder or its exported graph does not show the raw features of each view."
            )
    return Table(f"Preset {found['name']}", ("figure", "value"), tuple(rows), note)
