"""Who may do what, how often and how much: tokens, roles, rate, size, and requests from foreign pages."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis.deploy.server.proxies import address_block
from visavis.deploy.server.settings import Role, Settings, is_loopback

_REMEMBERED = 10_000
_HEADERS = (
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


class Gatekeeper:
    """Decides for every request; see `Settings`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tokens: list[tuple[bytes, Role]] = [(_digest(token), settings.tokens[token]) for token in settings.tokens]
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, request: Request, needs: Role) -> str:
        """Let a request pass; returns a short name of the client for the audit log.

        Raises:
            HTTPException: 401 no or wrong token, 403 the token may not, 403 sent by a page of another site, 421 not
                addressed to this machine, 429 too many.
        """
        self._check_origin(request)
        client = address_block(request.client.host) if request.client else "unknown"
        role: Role = "write"
        if self._tokens:
            given = request.headers.get("authorization", "")
            digest = _digest(given.removeprefix("Bearer "))
            matching: list[Role] = [r for token, r in self._tokens if hmac.compare_digest(token, digest)]
            if not matching or not given.startswith("Bearer "):
                self._count(f"refused:{client}", 60.0)
                raise HTTPException(
                    401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )
            role = matching[0]
            client = f"token:{digest.hex()[:8]}"
        if needs == "write" and role != "write":
            raise HTTPException(403, "this token may read, not enrol, change or forget")
        if self._settings.rate:
            self._count(client, self._settings.rate)
        return client

    def _count(self, client: str, rate: float) -> None:
        """A bucket of `rate` requests that refills over a minute."""
        now = time.monotonic()
        with self._lock:
            left, then = self._buckets.pop(client, (rate, now))
            left = min(rate, left + (now - then) * rate / 60)
            self._buckets[client] = (max(left - 1, 0.0), now)
            if len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        if left < 1:
            raise HTTPException(429, f"more than {rate:g} requests a minute", {"Retry-After": str(1 + int(60 / rate))})

    def _check_origin(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if not self._tokens and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            # Without tokens a page elsewhere could point its own name at this machine and read everything.
            raise HTTPException(421, "without a token this service answers to 127.0.0.1 and localhost only")
        origin = request.headers.get("origin")
        if origin and origin != "null" and origin not in self._settings.origins and urlsplit(origin).netloc != host:
            raise HTTPException(403, "requests from pages of other sites are refused")
        if origin == "null":
            raise HTTPException(403, "requests from pages without an address are refused")


class BodyLimit:
    """Refuses a request of more than `limit` bytes before and while it arrives, and adds safe headers to answers."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self._limit:
                raise HTTPException(413, self.refusal)
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in there)]
            await send(message)

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._limit:
            await _plain(guarded, 413, self.refusal)
            return
        await self._app(scope, counted, guarded)

    @property
    def refusal(self) -> str:
        """What a client is told."""
        return f"a request may have {self._limit:,} bytes; send smaller or fewer pictures"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


async def _plain(send: Send, status: int, text: str) -> None:
    import json

    body = json.dumps({"error": text}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
