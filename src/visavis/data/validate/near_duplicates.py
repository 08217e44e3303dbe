"""Whether two pictures with close hashes are one photograph: a look at their pixels, by several processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visavis.data.sources.base import Source
from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.processes import process_pool
from visavis.types import ByteArray

SAME = 0.85  # correlation of the pixels from which two pictures count as one
_HOPELESS = 0.4  # at the first of three scales: of 3,000 pairs none rose from below 0.5 to SAME at another
_ROUND = 4096  # candidates looked at before it is asked again which are linked already
_CHUNK = 64
_TRIES = 8  # vain looks at one picture inside its identity: a clip's frames must not cost their square

Detail = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Match:
    """Two pictures that are one: indices, and the correlation of their pixels (1.0 when their bytes are equal)."""

    first: int
    second: int
    correlation: float
    distance: int = 0


def detail_of(image: ByteArray) -> Detail:
    """The fine detail of a picture, (64, 64) float32: gray minus its blur, where no two photographs agree by chance."""
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA)
    plain = np.asarray(gray, np.float32)
    return plain - np.asarray(cv2.GaussianBlur(plain, (0, 0), 4), np.float32)


def correlation(a: Detail, b: Detail) -> float:
    """The best correlation of two details over shifts of 12 % and scales of ±7 %, since crops of one photo differ."""
    best = 0.0
    for scale in (1.0, 0.93, 1.07):
        inside = b[8:-8, 8:-8]
        if scale != 1.0:
            if best < _HOPELESS:
                return best
            side = round(len(inside) * scale)
            inside = np.asarray(cv2.resize(inside, (side, side)), np.float32)
        if float(inside.std()) < 1e-3 or float(a.std()) < 1e-3:
            return 0.0
        best = max(best, float(np.max(cv2.matchTemplate(a, inside, cv2.TM_CCOEFF_NORMED))))
    return best


class _Look:
    """Compares pictures of one set, or of two whose indices follow one another; keeps the details of the last ones."""

    def __init__(self, source: Source, against: Source | None) -> None:
        self.source, self.against = source, against
        self.details: dict[int, Detail] = {}

    def detail(self, index: int) -> Detail:
        if index not in self.details:
            if len(self.details) > 2048:
                self.details.clear()
            first = len(self.source)
            home, at = (self.source, index) if self.against is None or index < first else (self.against, index - first)
            self.details[index] = detail_of(home.image(at))
        return self.details[index]

    def __call__(self, pair: tuple[int, int]) -> float:
        try:
            return correlation(self.detail(pair[0]), self.detail(pair[1]))
        except DataError:  # gone since it was read
            return 0.0


class _Forest:
    """Which pictures are linked by what was found (union-find with path halving)."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}

    def root(self, i: int) -> int:
        while (above := self.parent.get(i, i)) != i:
            self.parent[i] = self.parent.get(above, above)
            i = self.parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        self.parent[self.root(i)] = self.root(j)


def confirm(
    candidates: npt.NDArray[np.int64],
    source: Source,
    *,
    against: Source | None = None,
    workers: int = 1,
    threshold: float = SAME,
) -> Iterator[tuple[int, Match | None]]:
    """Compare the pixels of candidate pairs (K, 3) as `close_hashes` gives them, the closest hashes first.

    Indices from len(source) on are pictures of `against`. Inside one identity a pair whose pictures are linked already
    by pairs found before is left out, and so is a picture that was compared in vain eight times: of ten pictures of one
    moment nine pairs are found, not 45. Across identities and sets every pair is compared.

    Yields:
        (candidates done with, the match or None).

    Raises:
        DataError: a worker process died.
    """
    order = np.lexsort((candidates[:, 1], candidates[:, 0], candidates[:, 2]))
    forest, vain = _Forest(), {}
    done = 0

    def inside(i: int, j: int) -> bool:
        return j < len(source) and source.labels[i] == source.labels[j]

    def worth(i: int, j: int) -> bool:
        tried = max(vain.get(i, 0), vain.get(j, 0))
        return not inside(i, j) or (tried < _TRIES and forest.root(i) != forest.root(j))

    few = len(candidates) <= 4 * _CHUNK
    with process_pool(_Look, source, against, workers=1 if few else workers) as pool:
        for start in range(0, len(order), _ROUND):
            rows = candidates[order[start : start + _ROUND]].tolist()
            chosen = [row for row in rows if worth(row[0], row[1])]
            done += len(rows) - len(chosen)
            for (i, j, distance), value in zip(
                chosen, pool.map([(i, j) for i, j, _ in chosen], chunk=_CHUNK), strict=True
            ):
                done += 1
                if not worth(i, j):  # linked by a pair of the same round: the result is that of one pair at a time
                    yield done, None
                elif value >= threshold:
                    forest.join(i, j)
                    yield done, Match(i, j, round(value, 4), distance)
                else:
                    if inside(i, j):
                        vain[i], vain[j] = vain.get(i, 0) + 1, vain.get(j, 0) + 1
                    yield done, None
