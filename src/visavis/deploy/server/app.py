"""The HTTP face of the service: routes, errors in plain words, metrics, a graceful end."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis import __version__
from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.records import StorageError, UnknownSubject
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.server import page, routes
from visavis.deploy.server.audit import AuditError
from visavis.deploy.server.audited import Audited
from visavis.deploy.server.connections import say_once_when_out_of_files
from visavis.deploy.server.guard import Guard
from visavis.deploy.server.handlers import RequestHandlers
from visavis.deploy.server.proxies import ForwardedClient
from visavis.deploy.server.request_ids import RequestIds, request_id
from visavis.deploy.server.service import Service
from visavis.deploy.server.settings import ServiceSettings
from visavis.errors import VisavisError

log = logging.getLogger(__name__)


def create_app(recognizer: Recognizer, gallery: GalleryBase, settings: ServiceSettings | None = None) -> FastAPI:
    """The service as an ASGI application; it closes the gallery when it ends."""
    settings = settings or ServiceSettings()
    service = Service(RequestHandlers(recognizer, gallery, settings), settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        say_once_when_out_of_files(asyncio.get_running_loop())
        await service.work(gallery.refresh)
        sweeper = asyncio.create_task(service.sweep_forever())
        yield
        sweeper.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="visavis",
        version=__version__,
        description="Verify, identify, enroll and forget faces.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.openapi = partial(_openapi, app.openapi)
    for kind in (VisavisError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, partial(_explain, service))
    app.include_router(routes.make_router(service))
    app.include_router(page.make_router())
    app.add_middleware(Audited, service=service)
    app.add_middleware(Guard, limit=settings.max_upload)
    app.add_middleware(_Recorder, service=service)
    app.add_middleware(RequestIds)
    app.add_middleware(ForwardedClient, trusted=settings.trusted_proxies, root_path=settings.root_path)
    return app


def _openapi(describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The description of the routes, with how a token is sent."""
    described = describe()
    schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["token"] = {"type": "http", "scheme": "bearer", "description": "from the operator; see x-role"}
    return described


async def _explain(service: Service, request: Request, error: Exception) -> JSONResponse:
    """An error as {"error": one line}, without a path of this machine."""
    headers = None
    if isinstance(error, HTTPException):
        status, text, headers = error.status_code, str(error.detail), error.headers
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        if first["type"] == "unknown_key":
            status, text = 400, first["msg"]
        else:
            status, text = 422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    elif isinstance(error, UnknownSubject):
        status, text = 404, str(error)
    elif isinstance(error, AuditError):
        status, text = 503, "the audit log cannot be written; nothing is changed until it can"
        log.error("request %s: %s", request_id(request.scope), error)
    elif isinstance(error, StorageError):
        status, text = 507 if "disk is full" in str(error) else 503, error.public or str(error)
        log.error("request %s: %s", request_id(request.scope), error)
    else:
        status, text = 422, str(error)
    return JSONResponse({"error": _without_path(text, service.handlers.gallery.path)}, status, headers)


def _without_path(text: str, path: str | os.PathLike[str]) -> str:
    """An error without where the gallery lies, whether it says so as it was typed or in full."""
    for shown in (os.path.abspath(path), os.path.realpath(path), os.fspath(path)):
        text = text.replace(f"{shown}: ", "")
    return text


class _Recorder:
    """Counts and times every request."""

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
