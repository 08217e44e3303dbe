"""The HTTP face of the service: routes, errors in plain words, metrics, an audit log, a graceful end."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis import __version__
from visavis.deploy.gallery import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.records import StorageError, UnknownSubject
from visavis.deploy.server.desk import Desk
from visavis.deploy.server.metrics import Metrics
from visavis.deploy.server.security import BodyLimit, Gatekeeper
from visavis.deploy.server.settings import Role, Settings
from visavis.errors import VisavisError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Service:
    """What the routes share."""

    def __init__(self, desk: Desk, settings: Settings) -> None:
        self.desk = desk
        self.settings = settings
        self.metrics = Metrics()
        self.gate = Gatekeeper(settings)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="visavis-work")
        self._pending = 0
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

    async def sweep_forever(self) -> None:
        """Erase subjects when their time is over."""
        while True:
            try:
                receipt = await self.work(self.desk.gallery.sweep)
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
        self.desk.close()
        self.desk.gallery.close()


def create_app(recognizer: Recognizer, gallery: Gallery, settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; it closes the gallery when it ends."""
    from visavis.deploy.server import page, routes

    settings = settings or Settings()
    service = Service(Desk(recognizer, gallery, settings), settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.work(gallery.refresh)
        sweeper = asyncio.create_task(service.sweep_forever())
        yield
        sweeper.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="visavis",
        version=__version__,
        description="Verify, identify, enrol and forget faces.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    for kind in (VisavisError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, partial(_explain, service))
    app.include_router(routes.make_router(service))
    app.include_router(page.make_router())
    app.add_middleware(_Recorder, service=service)
    app.add_middleware(BodyLimit, limit=settings.max_upload)
    return app


async def _explain(service: Service, request: Request, error: Exception) -> JSONResponse:
    """An error as {"error": one line}, without a path of this machine."""
    headers = None
    if isinstance(error, HTTPException):
        status, text, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        status, text = 422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    elif isinstance(error, UnknownSubject):
        status, text = 404, str(error)
    elif isinstance(error, StorageError):
        status, text = 507 if "disk is full" in str(error) else 503, str(error)
        log.error("%s", error)
    elif isinstance(error, VisavisError):
        status, text = 422, str(error)
    else:
        status, text = 500, "internal error; the service's log says more"
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": text.replace(f"{service.desk.gallery.path}: ", "")}, status, headers)


class _Recorder:
    """Counts and times every request, and writes the audit line."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "other")
            self._service.metrics.record(route, status, seconds)
            state = scope.get("state", {})
            if "client_name" in state and scope["method"] != "OPTIONS":
                self._service.audit(
                    {
                        "client": state["client_name"],
                        "action": f"{scope['method']} {route}",
                        "status": status,
                        "ms": round(1000 * seconds, 1),
                        "subjects": state.get("subjects", []),
                    }
                )
