"""Approximate search for large galleries: an inverted file over the same rows, its recall measured, answers exact."""

from __future__ import annotations

import logging
import threading
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy.topk import Found
from visavis.deploy.vectors import Precision, Vectors
from visavis.errors import DataError

LARGE = 50_000  # below this many rows an exact search takes milliseconds
TARGET = 0.99
_PROBES = 128


@final
class InvertedVectors(Vectors):
    """Rows as in `Vectors`, and k-means cells over them: a search looks into the cells nearest to the probe only.

    The similarity of every row found is computed from the stored row, so that approximation can miss a subject and
    never misstate one. Cells are made at the first search of `LARGE` rows or more, and again when they have doubled.
    How many cells are visited is raised until `TARGET` of noisy copies of enrolled rows (similarity about 0.6) are
    found as by an exact search; `recall` is the share measured. Jégou, Douze and Schmid, PAMI 33(1), 2011, as in
    faiss (IVF).

    Raises:
        DataError: faiss is not installed.
    """

    def __init__(self, dim: int, *, precision: Precision = "float32", large: int = LARGE) -> None:
        super().__init__(dim, precision=precision)
        try:
            logging.getLogger("faiss").setLevel(logging.WARNING)
            import faiss
        except ImportError as error:
            raise DataError('an approximate index wants faiss; type: pip install "visavis[gallery]"') from error
        self._faiss: Any = faiss
        self._large = large
        self._making = threading.Lock()
        self._ivf: Any = None
        self._made_for = 0
        self._keys = np.empty(0, np.int64)  # what the cells call a row; stays when rows move
        self._row_of: dict[int, int] = {}
        self._next_key = 0
        self.recall: float | None = None

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (M, D) at the end."""
        start, keys = len(self), np.arange(self._next_key, self._next_key + len(rows))
        super().append(rows)
        self._next_key += len(rows)
        self._keys = np.concatenate([self._keys[:start], keys])
        if self._ivf is not None:
            self._row_of.update(zip(keys.tolist(), range(start, start + len(rows)), strict=True))
            self._ivf.add_with_ids(np.ascontiguousarray(rows, np.float32), keys)

    def replace(self, row: int, vector: npt.NDArray[np.float32]) -> None:
        """Overwrite one row."""
        super().replace(row, vector)
        if self._ivf is not None:
            key = self._keys[row : row + 1].copy()
            self._ivf.remove_ids(key)
            self._ivf.add_with_ids(np.ascontiguousarray(vector[None], np.float32), key)

    def remove(self, row: int) -> None:
        """Erase one row, in its cell too."""
        last = len(self) - 1
        super().remove(row)
        gone = int(self._keys[row])
        self._keys[row] = self._keys[last]
        self._keys = self._keys[:last]
        if self._ivf is not None:
            self._ivf.remove_ids(np.array([gone], np.int64))
            self._row_of.pop(gone, None)
            if row < last:
                self._row_of[int(self._keys[row])] = row

    def search(self, probes: npt.NDArray[np.float32], k: int) -> Found:
        """The k most similar rows to each probe (P, D) among the cells visited, best first."""
        if len(self) < self._large:
            return super().search(probes, k)
        probes = np.ascontiguousarray(probes, np.float32)
        k = min(k, len(self))
        keys = self._cells().search(probes, k)[1]
        if (keys < 0).any():  # the cells visited hold fewer than k
            return super().search(probes, k)
        rows = np.array([[self._row_of[key] for key in line] for line in keys.tolist()], np.int64)
        similarity = np.einsum("pkd,pd->pk", self.taken(rows), probes)
        order = np.lexsort((rows, -similarity), axis=1)
        return np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)

    def _cells(self) -> Any:
        with self._making:
            if self._ivf is None or len(self) > 2 * self._made_for:
                self._make()
            return self._ivf

    def _make(self) -> None:
        """Train the cells and choose how many to visit."""
        n = len(self)
        cells = max(16, round(4 * np.sqrt(n)))
        rng = np.random.default_rng(0)
        kinds = self._faiss.ScalarQuantizer
        product = self._faiss.METRIC_INNER_PRODUCT
        self._quantizer = self._faiss.IndexFlatIP(self.dim)
        ivf: Any = self._faiss.IndexIVFScalarQuantizer(self._quantizer, self.dim, cells, kinds.QT_fp16, product)
        ivf.cp.niter = 8
        ivf.cp.min_points_per_centroid = 1
        sample = np.sort(rng.choice(n, min(n, 40 * cells), replace=False))
        ivf.train(self.taken(sample))
        ivf.set_direct_map_type(self._faiss.DirectMap.Hashtable)
        for start in range(0, n, 65_536):
            stop = min(n, start + 65_536)
            ivf.add_with_ids(np.ascontiguousarray(self.rows(start, stop), np.float32), self._keys[start:stop])
        self._row_of = {int(key): row for row, key in enumerate(self._keys)}
        self._ivf, self._made_for = ivf, n
        noisy = self.taken(rng.choice(n, min(n, _PROBES), replace=False))
        noisy = noisy + rng.standard_normal(noisy.shape) * (4 / 3 / np.sqrt(self.dim))
        noisy = np.ascontiguousarray(noisy, np.float32)
        truth = super().search(noisy, 1)[1][:, 0]
        visited = 1
        while True:
            ivf.nprobe = min(visited, cells)
            keys = ivf.search(noisy, 1)[1][:, 0]
            self.recall = float(
                np.mean([self._row_of.get(int(key), -1) == row for key, row in zip(keys, truth, strict=True)])
            )
            if self.recall >= TARGET or ivf.nprobe == cells:
                return
            visited *= 2
