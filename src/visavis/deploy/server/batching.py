"""Concurrent requests share a forward pass: while one batch runs, the next one gathers."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.types import ByteArray, Embedder


@dataclass(eq=False)
class _Job:
    crops: ByteArray
    rows: npt.NDArray[np.float32] | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.rows is not None or self.error is not None


@final
class BatchingEmbedder:
    """An Embedder that threads may call at once; their crops run together, up to `batch_size` at a time.

    Nothing waits for a batch to fill: whoever finds the network idle runs what waits, its own first of all when it is
    alone, and what arrives meanwhile is the next batch. There is no thread in between, whose waking would cost a lone
    request more than all else. On a processor large batches are no faster a crop (MobileFaceNet: 4.9 ms alone, 6.2 ms
    of 64), and their memory stays.
    """

    def __init__(self, embedder: Embedder, *, batch_size: int = 8) -> None:
        self._embedder = embedder
        self._batch_size = batch_size
        self._turn = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._busy = self._closed = False
        self.batches = 0
        self.crops = 0

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._embedder.dim

    def embed(self, crops: ByteArray) -> npt.NDArray[np.float32]:
        """Embed crops (N, H, W, 3); returns when the batch they joined is done.

        Raises:
            DataError: the service is shutting down.
        """
        job = _Job(crops)
        with self._turn:
            if self._closed:
                raise DataError("the service is shutting down")
            self._waiting.append(job)
        while True:
            with self._turn:
                self._turn.wait_for(lambda: job.done or not self._busy)
                if job.done:
                    break
                batch, self._busy = self._next(), True
            try:
                self._run(batch)
            finally:
                with self._turn:
                    self._busy = False
                    self._turn.notify_all()
        if job.error is not None:
            raise job.error
        assert job.rows is not None
        return job.rows

    def close(self) -> None:
        """Let what waits be done, and take no more."""
        with self._turn:
            self._closed = True
            self._turn.wait_for(lambda: not self._waiting and not self._busy)

    def _next(self) -> list[_Job]:
        """Those who came first, up to a batch."""
        jobs = [self._waiting.popleft()]
        while self._waiting and sum(len(job.crops) for job in jobs) < self._batch_size:
            jobs.append(self._waiting.popleft())
        return jobs

    def _run(self, jobs: list[_Job]) -> None:
        try:
            crops = np.concatenate([job.crops for job in jobs]) if len(jobs) > 1 else jobs[0].crops
            starts = range(0, len(crops), self._batch_size)
            parts = [self._embedder.embed(crops[at : at + self._batch_size]) for at in starts]
            rows = np.concatenate(parts) if len(parts) > 1 else parts[0]
        except BaseException as error:  # whoever waits must hear of it, whatever it was
            for job in jobs:
                job.error = error
            return
        start = 0
        for job in jobs:
            job.rows = rows[start : start + len(job.crops)].copy()
            start += len(job.crops)
        self.batches += 1
        self.crops += start
