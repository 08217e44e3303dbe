"""Embeddings about the mean of one's own people: what a model made of others gains from few, without training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis import seeding
from visavis.errors import DataError
from visavis.metrics.error_rates import error_curve
from visavis.metrics.similarity import unit_rows
from visavis.types import FloatArray, IntArray

FEWEST_PEOPLE = 20


def person_mean(embeddings: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """The mean m over people of the mean of each one's unit embeddings (N, D), so that no one counts for many.

    Raises:
        DataError: shapes that do not fit, or embeddings that are not finite.
    """
    rows, labels = np.asarray(embeddings, np.float64), np.asarray(labels)
    if rows.ndim != 2 or not len(rows) or labels.shape != (len(rows),) or not np.isfinite(rows).all():
        raise DataError(f"a mean wants finite embeddings (N, D) and N labels, got {rows.shape} and {labels.shape}")
    _, who, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, who, unit_rows(rows))
    return (sums / counts[:, None]).mean(axis=0)


def centered(embeddings: FloatArray, mean: FloatArray) -> npt.NDArray[np.float32]:
    """u = (x/‖x‖ − m) / ‖x/‖x‖ − m‖ of embeddings (N, D): what all people share makes no two alike any more."""
    return unit_rows(unit_rows(np.asarray(embeddings, np.float64)) - mean).astype(np.float32)


@dataclass(frozen=True)
class CenteringGain:
    """TMR at `fmr` on people the mean was not taken of, before and after, in each of several draws of halves."""

    fmr: float
    before: npt.NDArray[np.float64]
    after: npt.NDArray[np.float64]

    @property
    def difference(self) -> float:
        """Mean of after minus before."""
        return float((self.after - self.before).mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the differences over the draws."""
        return float((self.after - self.before).std(ddof=1))


def expected_gain(embeddings: FloatArray, labels: IntArray, *, draws: int = 10, seed: int = 0) -> CenteringGain:
    """What centering brings to others, told from one's own people: half of them give the mean, the others are judged.

    All pairs of the other half are compared, at the strictest of FMR 1e-4 … 1e-1 at which ten impostors may match.

    Args:
        embeddings: (N, D).
        labels: who is on each, (N,).
        draws: of halves.
        seed: of the draws.

    Raises:
        DataError: fewer than twenty people, or no two pictures of anybody in a half.
    """
    rows, labels = unit_rows(np.asarray(embeddings, np.float64)), np.asarray(labels)
    people = np.unique(labels)
    if len(people) < FEWEST_PEOPLE:
        raise DataError(
            f"centering wants {FEWEST_PEOPLE} people at least, got {len(people)}: the mean of fewer is theirs"
        )
    rng = seeding.generator(seed, "centering halves")
    halves = [np.isin(labels, rng.permutation(people)[: len(people) // 2]) for _ in range(draws)]
    fmr = max(_supported(labels[~half]) for half in halves)
    pairs = [(_tmr(rows[~h], labels[~h], fmr), _tmr_centered(rows, labels, h, fmr)) for h in halves]
    before, after = np.array(pairs).T
    return CenteringGain(fmr, before, after)


def _tmr_centered(rows: FloatArray, labels: IntArray, half: npt.NDArray[np.bool_], fmr: float) -> float:
    return _tmr(centered(rows[~half], person_mean(rows[half], labels[half])), labels[~half], fmr)


def _tmr(rows: FloatArray, labels: IntArray, fmr: float) -> float:
    first, second = np.triu_indices(len(rows), 1)
    return error_curve((rows @ rows.T)[first, second], labels[first] == labels[second]).at_fmr(fmr).tmr


def _supported(labels: IntArray) -> float:
    counts = np.unique(labels, return_counts=True)[1]
    genuine = int((counts * (counts - 1) // 2).sum())
    impostors = len(labels) * (len(labels) - 1) // 2 - genuine
    if not genuine:
        raise DataError("centering is tried on people of two pictures and more, and a half of these has none")
    return next((rate for rate in (1e-4, 1e-3, 1e-2) if rate * impostors >= 10), 1e-1)
