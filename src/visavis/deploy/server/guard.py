"""What stands around every request: limits of its body, safe headers on every answer, and one line for what fails."""

from __future__ import annotations

import asyncio
import json
import logging
import time

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis.deploy.server.request_ids import request_id

log = logging.getLogger(__name__)

MAX_JSON = 65_536
CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that hung up; no standard has one
_BODY_GRACE, _BODY_RATE = 15.0, 65_536  # seconds; then bytes a second that must arrive on the average
_DRAIN_SECONDS = 2.0
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
        b"connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
)


class Guard:
    """Bounds a request's body in bytes and time, and turns whatever goes wrong inside into an answer.

    Pictures come as multipart and may have `limit` bytes, any other body 64 KB. A body must arrive within 15 s, or
    at 64 KB/s on the average if that takes longer. A client that hangs up is answered 499, which only the log and the
    metrics see; work that is cut off by the end of the service is answered 503.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._limit)
        if exchange.announced > exchange.limit:
            await exchange.answer(413, exchange.too_large)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            await exchange.answer(503, "the service is shutting down; try again", retry=5)
        except ClientDisconnect:
            await exchange.answer(CLIENT_CLOSED_REQUEST, "the client hung up")
        except HTTPException as error:
            await exchange.answer(error.status_code, str(error.detail))
        except Exception:
            log.exception("request %s: %s %s failed", request_id(scope), scope["method"], scope["path"])
            await exchange.answer(500, "internal error; the service's log says more")
            if exchange.cut_short:
                raise  # half an answer was sent: only a closed connection tells the client


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        headers = dict(scope["headers"])
        multipart = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
        self.limit = limit if multipart else min(limit, MAX_JSON)
        length = headers.get(b"content-length", b"0")
        self.announced = int(length) if length.isdigit() and len(length) < 20 else limit + 1
        self._scope, self._receive, self._send = scope, receive, send
        self._waits = b"expect" in headers  # whoever asks first has sent nothing yet
        self._begun = time.monotonic()
        self._arrived = 0
        self._whole = not self.announced and b"transfer-encoding" not in headers
        self._gone = self._started = self._finished = False

    @property
    def too_large(self) -> str:
        """What a client is told."""
        if self.limit <= MAX_JSON:
            return (
                f"a request without pictures may have {self.limit:,} bytes; "
                "pictures go as files of multipart/form-data, e.g. curl -F picture=@photo.jpg URL"
            )
        return f"a request may have {self.limit:,} bytes; send smaller or fewer pictures"

    @property
    def cut_short(self) -> bool:
        """Whether an answer was begun and not ended."""
        return self._started and not self._finished

    async def receive(self) -> Message:
        """The application's `receive`.

        Raises:
            HTTPException: 408 the body comes too slowly, 413 there is too much of it.
        """
        if self._whole:
            return await self._receive()
        patience = max(_BODY_GRACE, self._arrived / _BODY_RATE) - (time.monotonic() - self._begun)
        try:
            message = await asyncio.wait_for(self._receive(), max(patience, 0.01))
        except TimeoutError:
            raise HTTPException(408, "the request's body came too slowly") from None
        self._arrived += len(message.get("body", b""))
        self._gone = self._gone or message["type"] == "http.disconnect"
        self._whole = self._gone or not message.get("more_body", False)
        if self._arrived > self.limit:
            raise HTTPException(413, self.too_large)
        return message

    async def send(self, message: Message) -> None:
        """The application's `send`."""
        if message["type"] == "http.response.start":
            self._started = True
            if self._gone and message["status"] >= 400:
                message["status"] = CLIENT_CLOSED_REQUEST
            if message["status"] == CLIENT_CLOSED_REQUEST:
                asked = request_id(self._scope), self._scope["method"], self._scope["path"]
                log.info("request %s: %s %s: the client hung up", *asked)
            there = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in SAFE_HEADERS if pair[0] not in there)]
            if not self._whole:
                message["headers"].append((b"connection", b"close"))
        self._finished = message["type"] == "http.response.body" and not message.get("more_body", False)
        if self._finished and not self._whole:
            await self._send({**message, "more_body": True})
            await self._drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def answer(self, status: int, text: str, *, retry: int | None = None) -> None:
        """{"error": text}, unless an answer was begun already."""
        if self._started:
            return
        body = json.dumps({"error": text}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if retry is not None:
            headers += [(b"retry-after", str(retry).encode()), (b"connection", b"close")]
            self._whole = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read and drop what is left, for a while: a connection closed with bytes unread takes its answer with it."""
        end, dropped = time.monotonic() + _DRAIN_SECONDS, 0
        while not self._waits and dropped < 2 * self.limit + MAX_JSON and (left := end - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self._receive(), left)
            except TimeoutError:
                return
            dropped += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
