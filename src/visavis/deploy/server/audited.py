"""No answer before its event is in the audit log."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis.deploy.server.audit import AuditError
from visavis.deploy.server.audit_events import DURABLE, EVENTS, REFUSALS, who
from visavis.deploy.server.guard import CLIENT_CLOSED_REQUEST
from visavis.deploy.server.service import Service

log = logging.getLogger(__name__)
_SAY_AGAIN = 10.0  # seconds


class Audited:
    """Writes the event of a request before its answer is sent; an event that cannot be written makes the answer 503."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service
        self._quiet_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        trail = self._service.audit
        if scope["type"] != "http" or trail is None:
            await self._app(scope, receive, send)
            return
        if trail.behind and not scope["path"].endswith("/healthz"):
            try:
                await self._service.write_audit(trail.flush)
            except AuditError as error:
                await self._refuse(send, error)
                return
        start, started, silenced = time.perf_counter(), False, False

        async def recorded(message: Message) -> None:
            nonlocal started, silenced
            if silenced:
                return
            if message["type"] == "http.response.start":
                started = True
                try:
                    await self._record(scope, message["status"], time.perf_counter() - start)
                except AuditError as error:
                    silenced = True
                    await self._refuse(send, error)
                    return
            await send(message)

        try:
            await self._app(scope, receive, recorded)
        except BaseException as error:
            if not started:
                with suppress(AuditError):  # kept, and written first as soon as it can be
                    await self._record(scope, _status(error), time.perf_counter() - start)
            raise

    async def _refuse(self, send: Send, error: AuditError) -> None:
        if time.monotonic() > self._quiet_until:  # one line for many requests
            self._quiet_until = time.monotonic() + _SAY_AGAIN
            log.error("%s", error)
        body = json.dumps({"error": "the audit log cannot be written; nothing is answered until it can"}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", b"10"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _record(self, scope: Scope, status: int, seconds: float) -> None:
        trail = self._service.audit
        assert trail is not None
        name = getattr(scope.get("route"), "name", None)
        event = EVENTS.get(str(name))
        state = scope.get("state", {})
        about: dict[str, Any] = {}
        if status in REFUSALS:
            left_out = self._service.refusals.take(who(scope)["address"])
            if left_out is None:
                return
            event, about = "refused", {"asked": event or name, **({"left_out": left_out} if left_out else {})}
        if event is None or (status not in REFUSALS and "role" not in state):
            return  # nobody was admitted, so nothing was done
        await self._service.write_audit(
            trail.write,
            event,
            durable=event in DURABLE and status < 400,
            **who(scope),
            status=status,
            ms=round(1000 * seconds, 1),
            **about,
            **({"subjects": state["subjects"]} if state.get("subjects") else {}),
            **state.get("about", {}),
        )


def _status(error: BaseException) -> int:
    """What the guard outside will answer."""
    if isinstance(error, asyncio.CancelledError):
        return 503
    if isinstance(error, ClientDisconnect):
        return CLIENT_CLOSED_REQUEST
    return error.status_code if isinstance(error, HTTPException) else 500
