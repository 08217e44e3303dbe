"""What the routes share: who may ask, the worker threads, the counters, the audit log and the timed erasure."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from visavis.deploy.server.admission import Gatekeeper
from visavis.deploy.server.handlers import RequestHandlers
from visavis.deploy.server.settings import Role, ServiceSettings
from visavis.deploy.server.telemetry import Metrics
from visavis.errors import VisavisError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Service:
    """What the routes share."""

    def __init__(self, handlers: RequestHandlers, settings: ServiceSettings) -> None:
        self.handlers = handlers
        self.settings = settings
        self.metrics = Metrics()
        self.gate = Gatekeeper(settings)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="visavis-work")
        self._pending = 0
        self._readiness: tuple[float, asyncio.Future[int]] | None = None
        self._audit_lock = threading.Lock()

    def admit(self, request: Request, needs: Role) -> None:
        """Check who asks; see `Gatekeeper.admit`."""
        request.state.client_name = self.gate.admit(request, needs)

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

    async def ready(self) -> None:
        """Read the gallery, at most once a second however many ask.

        Raises:
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
                receipt = await self.work(self.handlers.gallery.sweep)
                if receipt is not None:
                    self.audit({"action": "retention", "subjects": receipt.subjects, "complete": receipt.complete})
            except (VisavisError, HTTPException) as error:
                log.warning("erasing expired subjects failed, it is tried again: %s", error)
            await asyncio.sleep(self.settings.sweep_seconds)

    def audit(self, entry: dict[str, Any]) -> None:
        """Append one line of JSON to the audit log."""
        if self.settings.audit is None:
            return
        line = json.dumps({"time": round(time.time(), 3), **entry}) + "\n"
        with self._audit_lock, self.settings.audit.open("a", encoding="utf-8") as file:
            file.write(line)

    def close(self) -> None:
        """Finish requests at hand, then let go."""
        self._pool.shutdown(wait=True)
        self.handlers.close()
        self.handlers.gallery.close()
