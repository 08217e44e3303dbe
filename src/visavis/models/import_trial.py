"""An imported model tried on generated people: its pictures as told, and in the other readings they could want.

A checkpoint says neither whether it wants RGB or BGR, nor [−1, 1], [0, 1] or raw pixels, nor the template; a wrong
reading still gives embeddings, and only worse ones. Generated people are always at hand, and a recognizer of real ones
tells them apart (AUC 0.97 for one published MobileFaceNet), so that the readings can be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.metrics.similarity import unit_rows
from visavis.synthetic import generate
from visavis.types import ByteArray, FloatArray
from visavis.vision.preprocessing import PreprocessSpec, fit_crops

Run = Callable[[npt.NDArray[Any]], FloatArray]
SEED, IMAGES = 20_26, 4
_MOST, _LEAST = 24, 10  # people
_RANGES = {
    "pixels in [−1, 1]": ((127.5,) * 3, (127.5,) * 3),
    "pixels in [0, 1]": ((0.0,) * 3, (255.0,) * 3),
    "pixels as they are": ((0.0,) * 3, (1.0,) * 3),
    "ImageNet's mean and deviation": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
_GAIN = 0.01  # of AUC
_ERRORS = 2.0  # standard errors of the difference; the right reading has no better one, so chance alone must bring it
_CHANCE = 0.6


@dataclass(frozen=True)
class Reading:
    """One way to feed a model, in words and as its preprocessing, and how well pairs of pictures were told apart."""

    words: str
    preprocess: PreprocessSpec
    auc: float


@dataclass(frozen=True)
class ImportTrial:
    """What was tried. `better` is the best reading that tells people apart better than the one told, beyond chance."""

    told: Reading
    others: tuple[Reading, ...]
    untried: tuple[str, ...]
    better: Reading | None
    people: int

    def require(self) -> None:
        """Let the reading pass.

        Raises:
            ModelFormatError: another is better, or none tells people apart; with what to type.
        """
        if self.better is not None:
            options = _typed(self.told.preprocess, self.better.preprocess)
            raise ModelFormatError(
                f"tried on {self.people} generated people: AUC {self.told.auc:.3f} as told, {self.better.auc:.3f} with "
                f"{self.better.words}; import with --preprocess {options}, or keep what was told with --as-told"
            )
        best = max((self.told, *self.others), key=lambda reading: reading.auc)
        if best.auc < _CHANCE:
            raise ModelFormatError(
                f"tried on {self.people} generated people: AUC {self.told.auc:.3f} as told and {best.auc:.3f} at best "
                f"({best.words}): these are no embeddings of faces, or another output holds them; --as-told keeps them"
            )


def try_readings(
    run: Run, preprocess: PreprocessSpec, *, seconds: float = 12.0, pixels: bool = False, workers: int | None = None
) -> ImportTrial:
    """Embed generated people in the reading told and in others, one thing changed at a time.

    Args:
        run: float32 (N, 3, H, W) normalized -> features (N, D), the network itself; with `pixels` uint8 (N, H, W, 3).
        preprocess: as told.
        seconds: for embedding; slow networks see fewer people and, at the end, fewer readings.
        pixels: the graph normalizes, so that ranges are not tried.
        workers: processes that draw; one a usable core when None.

    Raises:
        ModelFormatError: features that are not finite, or not (N, D).
    """
    faces, _, _ = generate(SEED, range(_MOST), IMAGES, size=112, workers=workers)
    clock = _Clock()
    _features(run, faces[:8], preprocess, pixels=pixels)
    cost = clock.seconds() / 8
    others = list(_others(preprocess, pixels=pixels))
    affordable = int(seconds / max(cost, 1e-9)) // (len(others) + 1) // IMAGES
    faces = faces[: IMAGES * min(_MOST, max(_LEAST, affordable))]
    people = np.repeat(np.arange(len(faces) // IMAGES), IMAGES)

    def measured(words: str, spec: PreprocessSpec) -> tuple[Reading, FloatArray]:
        similarity = _similarity(_features(run, faces, spec, pixels=pixels))
        return Reading(words, spec, auc(similarity, people)), similarity

    told, told_similarity = measured("as told", preprocess)
    readings: list[Reading] = []
    better: Reading | None = None
    for number, (words, spec) in enumerate(others):
        if clock.seconds() > 1.5 * seconds:
            return ImportTrial(told, tuple(readings), tuple(w for w, _ in others[number:]), better, int(people[-1]) + 1)
        reading, similarity = measured(words, spec)
        readings.append(reading)
        gain = reading.auc - told.auc
        if gain > _GAIN and (better is None or reading.auc > better.auc):
            error = _error_of_difference(similarity, told_similarity, people)
            better = reading if gain > _ERRORS * error else better
    return ImportTrial(told, tuple(readings), (), better, int(people[-1]) + 1)


class _Clock:
    """Seconds since it was made; on a machine that does other work, those it worked for this process."""

    def __init__(self) -> None:
        self._wall, self._spent = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        return min(time.perf_counter() - self._wall, time.process_time() - self._spent)


def auc(similarity: FloatArray, people: npt.NDArray[np.int64]) -> float:
    """Area under the ROC of all pairs of pictures (N, N): the share of times a genuine pair is more alike."""
    first, second = np.triu_indices(len(people), 1)
    scores, same = similarity[first, second], people[first] == people[second]
    genuine, impostor = np.sort(scores[same]), scores[~same]
    below = np.searchsorted(genuine, impostor, "left")  # genuine pairs below an impostor pair count for nothing
    ties = np.searchsorted(genuine, impostor, "right") - below
    return float(1 - (below + ties / 2).sum() / (len(genuine) * len(impostor)))


def _error_of_difference(one: FloatArray, other: FloatArray, people: npt.NDArray[np.int64]) -> float:
    """Standard error of the difference of two AUC on the same pictures: the jackknife over people."""
    differences: list[float] = []
    for person in range(int(people[-1]) + 1):
        kept = np.flatnonzero(people != person)
        both = (auc(s[np.ix_(kept, kept)], people[kept]) for s in (one, other))
        differences.append(next(both) - next(both))
    n = len(differences)
    return float(np.sqrt((n - 1) / n * np.square(np.array(differences) - np.mean(differences)).sum()))


def _others(told: PreprocessSpec, *, pixels: bool) -> Iterator[tuple[str, PreprocessSpec]]:
    """The other readings: ranges, order of channels, template."""
    if not pixels:
        for words, (mean, std) in _RANGES.items():
            if not (np.allclose(mean, told.mean, atol=2) and np.allclose(std, told.std, rtol=0.05)):
                yield words, replace(told, mean=mean, std=std)
    channels = "BGR" if told.channels == "RGB" else "RGB"
    yield f"{channels} channels", replace(told, channels=channels)
    template = "sphereface" if told.template == "arcface" else "arcface"
    yield f"the {template} template", replace(told, template=template)


def _features(run: Run, faces: ByteArray, spec: PreprocessSpec, *, pixels: bool) -> FloatArray:
    crops = fit_crops(faces, spec)
    if spec.channels == "BGR":
        crops = crops[..., ::-1]
    parts: list[FloatArray] = []
    for start in range(0, len(crops), 8):
        x: npt.NDArray[Any] = np.ascontiguousarray(crops[start : start + 8])
        if not pixels:
            normal = (x.astype(np.float32) - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
            x = np.ascontiguousarray(normal.transpose(0, 3, 1, 2))
        parts.append(run(x))
        if parts[-1].ndim != 2 or len(parts[-1]) != len(x):
            raise ModelFormatError(f"expected features ({len(x)}, D), got {parts[-1].shape}")
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise ModelFormatError("the model gives features that are not finite, for generated faces as told")
    return features


def _similarity(features: FloatArray) -> FloatArray:
    rows = unit_rows(features)
    return rows @ rows.T


def _typed(told: PreprocessSpec, better: PreprocessSpec) -> str:
    """The options that differ, as they are typed."""
    words: list[str] = []
    for key in ("mean", "std", "channels", "template"):
        value = getattr(better, key)
        if value != getattr(told, key):
            text = value if isinstance(value, str) else "/".join(f"{v:g}" for v in dict.fromkeys(value))
            words.append(f"{key}={text}")
    return ",".join(words)
