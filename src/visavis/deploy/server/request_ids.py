"""A name for every request, in its answer, the log and the audit log."""

from __future__ import annotations

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
_PROPER = re.compile(rb"[A-Za-z0-9._-]{8,64}")


def request_id(scope: Scope) -> str:
    """The name of a request."""
    return scope.get("state", {}).get("request_id", "unknown")


class RequestIds:
    """Gives every request a name: a trusted proxy's X-Request-ID, or a new one; the answer carries it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        given = dict(scope["headers"]).get(HEADER, b"") if state.get("through_proxy") else b""
        state["request_id"] = given.decode() if _PROPER.fullmatch(given) else secrets.token_hex(8)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, state["request_id"].encode())]
            await send(message)

        await self._app(scope, receive, named)
