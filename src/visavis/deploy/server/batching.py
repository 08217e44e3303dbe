"""Concurrent requests share a forward pass: while one batch runs, the next one gathers."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import final

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.types import ByteArray, Embedder

_Job = tuple[ByteArray, "Future[npt.NDArray[np.float32]]"]


@final
class BatchingEmbedder:
    """An Embedder that threads may call at once; their crops run together, up to `batch_size` at a time.

    Nothing waits for a batch to fill: a lone request runs at once, and what arrives meanwhile is the next batch. On a
    processor large batches are no faster a crop (MobileFaceNet: 4.9 ms alone, 6.2 ms of 64), and their memory stays.
    """

    def __init__(self, embedder: Embedder, *, batch_size: int = 8) -> None:
        self._embedder = embedder
        self._batch_size = batch_size
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self.batches = 0
        self.crops = 0
        self._thread = threading.Thread(target=self._work, name="visavis-embed", daemon=True)
        self._thread.start()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._embedder.dim

    def embed(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """Embed crops (N, H, W, 3); returns when the batch they joined is done."""
        if self._closed:
            raise DataError("the service is shutting down")
        done: Future[npt.NDArray[np.float32]] = Future()
        self._jobs.put((crops, done))
        return done.result()

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            jobs, ends = [job], False
            while sum(len(crops) for crops, _ in jobs) < self._batch_size:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ends = True
                    break
                jobs.append(more)
            self._run(jobs)
            if ends:
                return

    def _run(self, jobs: list[_Job]) -> None:
        try:
            crops = np.concatenate([crops for crops, _ in jobs])
            starts = range(0, len(crops), self._batch_size)
            rows = np.concatenate([self._embedder.embed(crops[at : at + self._batch_size]) for at in starts])
        except BaseException as error:  # whoever waits must hear of it, whatever it was
            for _, done in jobs:
                done.set_exception(error)
            return
        self.batches += 1
        start = 0
        for crops, done in jobs:
            done.set_result(rows[start : start + len(crops)].copy())
            start += len(crops)
        self.crops += start
