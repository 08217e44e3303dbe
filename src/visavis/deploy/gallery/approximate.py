"""Approximate search for large galleries: cells or a graph over the same rows, recall measured, similarities exact."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from typing import Any, final

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.topk import Found
from visavis.deploy.gallery.vectors import Precision, Vectors
from visavis.errors import DataError

LARGE = 50_000  # below this many rows an exact search takes milliseconds
TARGET = 0.99
_PROBES = 128
_BATCH = 65_536
Rows = npt.NDArray[np.float32]


class ApproximateVectors(Vectors):
    """Rows as in `Vectors`, and a structure over them: a search looks at a part of them only.

    The similarity of every row found is computed from the stored row, so that approximation can miss a subject and
    never misstate one. The structure is made at the first search of `large` rows or more, and again when they have
    doubled. How much a search looks at is raised until `TARGET` of noisy copies of enrolled rows (similarity about 0.6)
    are found as by an exact search; `recall` is the share measured.

    Raises:
        DataError: faiss is not installed.
    """

    def __init__(self, dim: int, *, precision: Precision = "float32", large: int = LARGE) -> None:
        super().__init__(dim, precision=precision)
        try:
            logging.getLogger("faiss").setLevel(logging.WARNING)
            import faiss  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise DataError('an approximate index wants faiss; type: pip install "visavis[gallery]"') from error
        self._faiss: Any = faiss
        self._large = large
        self._making = threading.Lock()
        self._made: Any = None
        self._made_for = 0
        self._keys = np.empty(0, np.int64)  # what the structure calls a row; stays when rows move
        self._row_of = np.empty(0, np.int64)  # of every key ever given; -1 when erased
        self.recall: float | None = None

    def append(self, rows: Rows) -> None:
        """Add rows (M, D) at the end."""
        start = len(self)
        super().append(rows)
        self._keys = np.concatenate([self._keys[:start], self._new_keys(np.arange(start, start + len(rows)))])
        if self._made is not None:
            self._add(np.ascontiguousarray(rows, np.float32), self._keys[start:])

    def replace(self, row: int, vector: Rows) -> None:
        """Overwrite one row."""
        super().replace(row, vector)
        self._forget(int(self._keys[row]))
        self._keys[row] = self._new_keys(np.array([row]))[0]
        if self._made is not None:
            self._add(np.ascontiguousarray(vector[None], np.float32), self._keys[row : row + 1])

    def remove(self, row: int) -> None:
        """Erase one row, in the structure too."""
        last = len(self) - 1
        super().remove(row)
        self._forget(int(self._keys[row]))
        self._keys[row] = self._keys[last]
        self._keys = self._keys[:last]
        if row < last:
            self._row_of[self._keys[row]] = row

    def search(self, probes: Rows, k: int) -> Found:
        """The k most similar rows to each probe (P, D) among those looked at, best first."""
        if len(self) < self._large:
            return super().search(probes, k)
        probes = np.ascontiguousarray(probes, np.float32)
        k = min(k, len(self))
        keys = self._structure().search(probes, self._ask(k))[1]
        rows = np.where(keys < 0, -1, self._row_of[keys])
        similarity = np.einsum("pkd,pd->pk", self.taken(np.maximum(rows, 0)), probes)
        similarity[rows < 0] = -np.inf
        order = np.lexsort((rows, -similarity), axis=1)[:, :k]
        similarity = np.take_along_axis(similarity, order, 1)
        if np.isinf(similarity).any():  # what was looked at holds fewer than k
            return super().search(probes, k)
        return similarity, np.take_along_axis(rows, order, 1)

    def _structure(self) -> Any:
        with self._making:
            if self._made is None or len(self) > 2 * self._made_for or self._worn():
                self._make()
            return self._made

    def _make(self) -> None:
        """Build the structure and choose how much a search looks at."""
        n = len(self)
        rng = np.random.default_rng(0)
        self._made = self._empty(n, rng)
        self._keys = np.arange(n)
        self._row_of = np.arange(n)
        for start in range(0, n, _BATCH):
            stop = min(n, start + _BATCH)
            self._add(np.ascontiguousarray(self.rows(start, stop)), self._keys[start:stop])
        self._made_for = n
        noisy = self.taken(rng.choice(n, min(n, _PROBES), replace=False))
        noisy = (noisy + rng.standard_normal(noisy.shape) * (4 / 3 / np.sqrt(self.dim))).astype(np.float32)
        truth = super().search(noisy, 1)[1][:, 0]
        step = 0
        while True:
            most = self._look_at(step, n)
            self.recall = float((self._made.search(noisy, 1)[1][:, 0] == truth).mean())
            if self.recall >= TARGET or most:
                return
            step += 1

    def _new_keys(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        keys = len(self._row_of) + np.arange(len(rows))
        self._row_of = np.concatenate([self._row_of, rows])
        return keys

    def _forget(self, key: int) -> None:
        self._row_of[key] = -1
        if self._made is not None:
            self._drop(key)

    def _ask(self, k: int) -> int:
        return k

    def _worn(self) -> bool:
        return False

    @abstractmethod
    def _empty(self, n: int, rng: np.random.Generator) -> Any:
        """A structure for n rows without any in it."""

    @abstractmethod
    def _add(self, rows: Rows, keys: npt.NDArray[np.int64]) -> None: ...

    @abstractmethod
    def _drop(self, key: int) -> None: ...

    @abstractmethod
    def _look_at(self, step: int, n: int) -> bool:
        """Look at twice as much with every step; whether it is everything now."""


@final
class InvertedVectors(ApproximateVectors):
    """k-means cells; a search visits those nearest to the probe.

    Jégou, Douze and Schmid, PAMI 33(1), 2011, as in faiss (IVF).
    """

    def _empty(self, n: int, rng: np.random.Generator) -> Any:
        cells = max(16, round(4 * np.sqrt(n)))
        product = self._faiss.METRIC_INNER_PRODUCT
        self._quantizer = self._faiss.IndexFlatIP(self.dim)
        half = self._faiss.ScalarQuantizer.QT_fp16
        ivf: Any = self._faiss.IndexIVFScalarQuantizer(self._quantizer, self.dim, cells, half, product)
        ivf.cp.niter = 8
        ivf.cp.min_points_per_centroid = 1
        ivf.train(self.taken(np.sort(rng.choice(n, min(n, 40 * cells), replace=False))))
        ivf.set_direct_map_type(self._faiss.DirectMap.Hashtable)
        return ivf

    def _add(self, rows: Rows, keys: npt.NDArray[np.int64]) -> None:
        self._made.add_with_ids(rows, np.ascontiguousarray(keys))

    def _drop(self, key: int) -> None:
        self._made.remove_ids(np.array([key], np.int64))

    def _look_at(self, step: int, n: int) -> bool:
        self._made.nprobe = min(1 << step, self._made.nlist)
        return self._made.nprobe == self._made.nlist


@final
class GraphVectors(ApproximateVectors):
    """A navigable graph: a search walks towards the probe. Fewer rows are looked at than by cells; making takes longer.

    Nodes cannot be taken out of it: the vector of one erased is overwritten with zeros, and the graph is made anew when
    a fifth of its nodes are dead. Malkov and Yashunin, PAMI 42(4), 2020, as in faiss (HNSW, M = 16).
    """

    _dead = 0

    def _empty(self, n: int, rng: np.random.Generator) -> Any:
        self._dead = 0
        half = self._faiss.ScalarQuantizer.QT_fp16
        graph: Any = self._faiss.IndexHNSWSQ(self.dim, half, 16, self._faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 60
        graph.is_trained = True  # float16 has nothing to learn
        graph.storage.is_trained = True
        return graph

    def _add(self, rows: Rows, keys: npt.NDArray[np.int64]) -> None:
        assert int(keys[0]) == self._made.ntotal  # the graph numbers its nodes itself
        self._made.add(rows)

    def _drop(self, key: int) -> None:
        codes = self._storage_codes()
        self._faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(-1, 2 * self.dim)[key] = 0
        self._dead += 1

    def _storage_codes(self) -> Any:
        return self._faiss.downcast_index(self._made.storage).codes

    def _ask(self, k: int) -> int:
        return min(self._made.ntotal, k + min(self._dead, k))

    def _worn(self) -> bool:
        return self._dead > self._made.ntotal // 5

    def _look_at(self, step: int, n: int) -> bool:
        self._made.hnsw.efSearch = min(16 << step, n)
        return self._made.hnsw.efSearch == n
