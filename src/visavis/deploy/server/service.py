"""What the routes share: who may ask, the worker threads, the counters, the audit log and the timed erasure."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from visavis.deploy.server.admission import Gatekeeper
from visavis.deploy.server.audit import AuditError, AuditLog
from visavis.deploy.server.audit_events import EVENTS, RefusalBudget, who
from visavis.deploy.server.budget import Budget
from visavis.deploy.server.handlers import Named, RequestHandlers
from visavis.deploy.server.roles import Role, may
from visavis.deploy.server.settings import ServiceSettings
from visavis.deploy.server.telemetry import Metrics
from visavis.errors import VisavisError
from visavis.machine import release_memory

log = logging.getLogger(__name__)
T = TypeVar("T")


_SMALL, _LARGE = 262_144, 1_048_576  # bytes whose headers are read at once, and from which a body is counted
_TIDY = 4_000_000  # pixels
_UPLOADS = 8  # of the largest size, in memory at a time


class Service:
    """What the routes share."""

    def __init__(self, handlers: RequestHandlers, settings: ServiceSettings) -> None:
        self.handlers = handlers
        self.settings = settings
        self.metrics = Metrics(handlers.identity)
        self.gate = Gatekeeper(settings)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="visavis-work")
        self._pending = 0
        self._untidy, self._tidied = 0, 0.0
        self._pixels = Budget(settings.max_pixels_in_flight, waiting=settings.waiting)
        self._bytes = Budget(_UPLOADS * settings.max_upload, waiting=settings.waiting)
        self._readiness: tuple[float, asyncio.Future[int]] | None = None
        self.audit = None if settings.audit is None else AuditLog(settings.audit)
        self.refusals = RefusalBudget()
        self._scribe = ThreadPoolExecutor(1, thread_name_prefix="visavis-audit")
        if self.audit is not None:
            self.audit.write("start", client="service", gallery=str(handlers.gallery.path))

    async def admit(self, request: Request, needs: Role) -> None:
        """Check who asks, and write that a change begins before it does; see `Gatekeeper.admit`.

        Raises:
            AuditError: it could not be written, so it must not begin.
        """
        self.gate.admit(request, needs)
        if self.audit is not None and may(needs, "write") and request.method != "GET":
            event = EVENTS.get(request.scope["route"].name, request.scope["route"].name)
            write = partial(self.audit.write, event, keep=False, phase="begins", **who(request.scope))
            await self.write_audit(write)

    async def write_audit(self, write: Callable[..., None], *args: Any, **about: Any) -> None:
        """Write to the audit log, in order and off the event loop."""
        await asyncio.get_running_loop().run_in_executor(self._scribe, partial(write, *args, **about))

    async def work(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run in a worker thread; turned away when too many wait already.

        Raises:
            HTTPException: 503.
        """
        if self._pending >= self.settings.workers + self.settings.waiting:
            raise HTTPException(503, "too many requests are waiting; try again", {"Retry-After": "1"})
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **options))
        finally:
            self._pending -= 1

    async def analyze(self, function: Callable[..., T], *args: Any, images: Sequence[Named], **options: Any) -> T:
        """`work` on pictures, once the pixels all requests hold together leave room for theirs.

        Raises:
            HTTPException: 413 more pixels than a request may have, 503.
        """
        small = sum(len(data) for _, data in images) <= _SMALL
        count = self.handlers.count_pixels
        pixels = count(images) if small else await self.work(count, images)
        if len(images) > 1 and pixels > self.settings.max_pixels:
            raise HTTPException(
                413,
                f"the pictures of a request may have {self.settings.max_pixels:,} pixels together, these have "
                f"{pixels:,}; send fewer at a time, or smaller ones",
            )
        async with self._pixels.take(pixels):
            try:
                return await self.work(function, *args, **options)
            finally:
                self._tidy(pixels)

    def _tidy(self, pixels: int) -> None:
        """Give memory back after large pictures, at most once a second: what threads free, their arenas keep."""
        self._untidy += pixels
        now = time.monotonic()
        if self._untidy > _TIDY and now - self._tidied > 1.0:
            self._untidy, self._tidied = 0, now
            with suppress(RuntimeError):  # the service is ending
                self._pool.submit(release_memory)

    def hold(self, request: Request) -> AbstractAsyncContextManager[None]:
        """Room for a request's body beside all others'; small ones are not counted."""
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdigit() and len(length) < 20 else self.settings.max_upload
        has_body = request.method in ("POST", "PUT", "PATCH")
        return self._bytes.take(size if has_body and size > _LARGE else 0)

    async def ready(self) -> None:
        """Read the gallery, at most once a second however many ask.

        Raises:
            AuditError: the audit log cannot be written.
            HTTPException: 503, all workers are busy and as many requests wait as may.
            StorageError: the gallery cannot be read.
        """
        if self._readiness is None or time.monotonic() - self._readiness[0] > 1.0:
            task = asyncio.ensure_future(self.work(self.handlers.gallery.refresh))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may have gone
            self._readiness = time.monotonic(), task
        await asyncio.shield(self._readiness[1])

    async def sweep_forever(self) -> None:
        """Erase subjects when their time is over."""
        while True:
            try:
                receipt = None if self.settings.read_only else await self.work(self.handlers.sweep)
                if receipt is not None and self.audit is not None:
                    done = {"subjects": list(receipt.ids), "complete": receipt.complete}
                    await self.write_audit(self.audit.write, "expire", durable=True, client="service", **done)
                await self._tell_refusals()
            except (VisavisError, HTTPException) as error:
                log.warning("erasing expired subjects failed, it is tried again: %s", error)
            await asyncio.sleep(self.settings.sweep_seconds)

    async def _tell_refusals(self) -> None:
        """Write how many refusals were left out; see `RefusalBudget`."""
        for address, count in self.refusals.rest():
            if self.audit is not None:
                await self.write_audit(self.audit.write, "refused", address=address, left_out=count)

    def close(self) -> None:
        """Finish requests at hand, then let go."""
        self._pool.shutdown(wait=True)
        self.handlers.close()
        self.handlers.gallery.close()
        self._scribe.shutdown(wait=True)
        if self.audit is not None:
            try:
                for address, count in self.refusals.rest(everything=True):
                    self.audit.write("refused", address=address, left_out=count)
                self.audit.write("stop", client="service")
            except AuditError as error:
                log.error("%s", error)
            self.audit.close()
