"""Unit vectors held in memory for searching, as float32, float16 or int8, growing and shrinking in place."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.topk import CHUNK, FEW, Found, join, top_k
from visavis.errors import DataError, unknown_name
from visavis.machine import usable_cores

Precision = Literal["float32", "float16", "int8"]
_HUGE = 1 << 21
_WIDEN = 1024  # rows widened at a time: their float32 form stays in the cache
_ASKED = os.environ.get("OMP_NUM_THREADS", "")
_THREADS = min(int(_ASKED) if _ASKED.isdecimal() and int(_ASKED) else usable_cores(), 8)
_POOL = ThreadPoolExecutor(_THREADS, thread_name_prefix="visavis-scan")


class Vectors:
    """Rows (N, D) of length 1 that can be added, replaced and removed; searching is exact over what is stored.

    float16 rounds each component to 11 bits; int8 stores round(v · 127 / c) with c = min(1, 6/√D), the same for every
    row, so that removing and adding never rescales. `scores` of the lossy kinds differ from the true similarity by
    about 1e-4 (float16) and 1e-3 (int8); callers rescore the best few (see `Gallery.identify`).
    """

    def __init__(self, dim: int, *, precision: Precision = "float32") -> None:
        if precision not in get_args(Precision):
            raise DataError(unknown_name("precision", precision, get_args(Precision)))
        self.dim = dim
        self.precision: Precision = precision
        self._scale = np.float32(127 / min(1.0, 6 / np.sqrt(dim)))
        # What decoding leaves to be multiplied: see `_decode`.
        self._unit = np.float32({"float32": 1, "float16": 2.0**112, "int8": 1 / self._scale}[precision])
        self._dtype = np.dtype(np.uint8 if precision == "int8" else precision)
        self._data = np.empty((0, dim), self._dtype)
        self._n = 0
        self._mapped = False  # rows are pages of a file, which `copy` brings into memory
        self._copied: npt.NDArray[Any] | None = None
        self._scanner = _Scanner(dim, self._dtype) if precision != "float32" and _has_faiss() else None

    def __len__(self) -> int:
        return self._n

    @property
    def nbytes(self) -> int:
        """Bytes of memory the rows take, room for growing included."""
        return self._data.nbytes

    def reserve(self, n: int) -> None:
        """Make room for n rows in all."""
        if n <= len(self._data):
            return
        if self._scanner is not None:
            self._data = self._scanner.resize(n)
        else:
            grown = np.empty((n, self.dim), self._dtype)
            grown[: self._n] = self._data[: self._n]
            if not self._mapped:  # a mapped page written into would first be copied
                self._data[: self._n] = 0
            self._data, self._mapped, self._copied = grown, False, None

    def adopt(self, rows: npt.NDArray[np.float32]) -> None:
        """Take rows (N, D) mapped from a file for one's own; only while there are none, and only as float32."""
        self._data, self._n, self._mapped = rows, len(rows), True

    @property
    def mapped(self) -> bool:
        """Whether rows are still pages of a file: a little slower to search."""
        return self._mapped

    def copy(self, start: int, stop: int) -> None:
        """Copy mapped rows [start, stop) into memory; `copied` ends it when all are."""
        if self._mapped:
            if self._copied is None:
                self._copied = np.empty((with_room(self._n), self.dim), self._dtype)
            stop = min(stop, self._n)
            self._copied[start:stop] = self._data[start:stop]

    def copied(self) -> None:
        """Go on with the copy."""
        if self._mapped and self._copied is not None:
            self._data, self._mapped, self._copied = self._copied, False, None

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (M, D) at the end."""
        stop = self._n + len(rows)
        if stop > len(self._data):
            self.reserve(max(stop, int(1.5 * self._n), 256))
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            self._data[self._n + start : self._n + start + len(part)] = self._encode(part)
        self._n = stop

    def replace(self, row: int, vector: npt.NDArray[np.float32]) -> None:
        """Overwrite one row; `vector` (D,)."""
        for data in self._places():
            data[row] = self._encode(vector[None])[0]

    def remove(self, row: int) -> None:
        """Erase one row: the last takes its place, and the place of the last is overwritten with zeros."""
        last = self._n - 1
        for data in self._places():
            data[row] = data[last]
            data[last] = 0
        self._n = last

    def _places(self) -> list[npt.NDArray[Any]]:
        """Where a row is written: also into the copy that is being made, whose rows to come are overwritten then."""
        return [self._data] if self._copied is None else [self._data, self._copied]

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows [start, stop) as float32; (N, D)."""
        return self._decode(self._data[start:stop]) * self._unit

    def taken(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Rows by number, any shape (…) -> float32 (…, D)."""
        return self._decode(self._data[rows]) * self._unit

    def search(self, probes: npt.NDArray[np.float32], k: int) -> Found:
        """The k most similar rows to each probe (P, D), best first."""
        probes = np.ascontiguousarray(probes, np.float32)
        few = len(probes) <= FEW and self._n > 0
        if self._scanner is not None and few:
            if self.precision == "int8":  # the scan multiplies integers: the probe is rounded like the rows
                similarity, row = self._scanner.search(self._rounded(probes), self._n, min(k, self._n))
                return similarity * self._unit * self._unit, row
            return self._scanner.search(probes, self._n, min(k, self._n))
        if self.precision == "float32":
            if few:  # a product of few columns uses one core
                return join(_in_parts(self._n, lambda a, b: top_k(probes, self._stored, b, k, first=a)), k)
            return top_k(probes, self._stored, self._n, k)
        buffer = np.empty((_WIDEN, self.dim), np.float32)
        widened = lambda a, b: self._decode(self._data[a:b], buffer[: b - a])  # noqa: E731
        return top_k(probes * self._unit, widened, self._n, k, chunk=_WIDEN)

    def _stored(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        return self._data[start:stop]  # pyright: ignore[reportReturnType]

    def _decode(self, codes: npt.NDArray[Any], out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
        """Codes as float32, to be multiplied by `_unit` (which searches do to the probes instead).

        A float16 below 2 becomes a float32 by moving its bits: the exponent then counts from another origin, 2⁻¹¹²
        times the value. NumPy's own conversion takes four times as long.
        """
        if self.precision == "float32":
            return codes
        out = np.empty(codes.shape, np.float32) if out is None else out
        if self.precision == "int8":
            np.copyto(out, codes)
            out -= 128
        else:
            bits = out.view(np.int32)
            np.copyto(bits, codes.view(np.int16))  # extends the sign
            np.left_shift(bits, 13, out=bits)
            np.bitwise_and(bits, -0x70000001, out=bits)
        return out

    def _rounded(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.clip(np.rint(rows * self._scale), -127, 127)

    def _encode(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if self.precision == "int8":
            return (self._rounded(rows) + 128).astype(np.uint8)
        return rows.astype(self._dtype, copy=False)


def with_room(n: int) -> int:
    """Rows to make room for where n are loaded, so that the next that comes does not move them all."""
    return n + n // 32


def _on_huge_pages(memory: npt.NDArray[np.uint8]) -> None:
    """Ask Linux to put memory on pages of 2 MB, as NumPy does with its own: scanning is a third faster.

    Elsewhere, and where the kernel (before 6.1) or its settings do not have it, nothing happens.
    """
    start = -(-memory.ctypes.data // _HUGE) * _HUGE
    size = (memory.ctypes.data + memory.nbytes) // _HUGE * _HUGE - start
    if size > 0 and sys.platform == "linux":
        madvise = ctypes.CDLL(None).madvise
        for advice in (14, 25):  # MADV_HUGEPAGE for what is touched later, MADV_COLLAPSE for what was
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def _in_parts(n: int, task: Callable[[int, int], Found]) -> list[Found]:
    """`task(start, stop)` over parts of [0, n), one for each thread."""
    bounds = np.linspace(0, n, min(_THREADS, 1 + n // CHUNK) + 1).astype(int).tolist()
    if len(bounds) == 2:
        return [task(0, n)]
    return list(_POOL.map(task, bounds[:-1], bounds[1:]))


def _has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


class _Scanner:
    """Owns the codes of a lossy store inside a faiss index, which scans them decoding in registers.

    NumPy sees the same memory through `codes`, so that rows are written and erased in place.
    """

    def __init__(self, dim: int, dtype: np.dtype[Any]) -> None:
        logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells what it tries
        import faiss

        kinds = faiss.ScalarQuantizer
        kind = kinds.QT_fp16 if dtype == np.float16 else kinds.QT_8bit_direct_signed
        self._faiss = faiss
        self._dim, self._dtype = dim, dtype
        self._index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
        self._index.is_trained = True

    def resize(self, n: int) -> npt.NDArray[Any]:
        """Make room for n rows, keeping those there are; returns the memory as (n, D)."""
        self._index.codes.resize(n * self._dim * self._dtype.itemsize)
        raw = self._faiss.rev_swig_ptr(self._index.codes.data(), self._index.codes.size())
        _on_huge_pages(raw)
        return raw.view(self._dtype).reshape(n, self._dim)

    def search(self, probes: npt.NDArray[np.float32], n: int, k: int) -> Found:
        """Top k of the first n rows, each thread reading a part of them once."""
        self._index.ntotal = n
        return join(_in_parts(n, lambda start, stop: self._part(probes, k, start, stop)), k)

    def _part(self, probes: npt.NDArray[np.float32], k: int, start: int, stop: int) -> Found:
        if stop - start == self._index.ntotal:
            return self._index.search(probes, k)
        only = self._faiss.SearchParameters(sel=self._faiss.IDSelectorRange(start, stop, True))  # pyright: ignore[reportCallIssue]
        return self._index.search(probes, k, params=only)
