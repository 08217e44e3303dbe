"""Who may do what and how often: tokens, roles, rate, and requests from foreign pages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from visavis.deploy.server.proxies import address_block
from visavis.deploy.server.request_fields import StrictRequest, check_body
from visavis.deploy.server.roles import Role, TokenRegistry, may, token_digest
from visavis.deploy.server.settings import ServiceSettings, is_loopback

_REMEMBERED = 10_000


class Gatekeeper:
    """Decides for every request; see `ServiceSettings`."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self.tokens = TokenRegistry(settings.tokens, settings.token_file)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, request: Request, needs: Role) -> None:
        """Let a request pass; its state tells the client's short name and role to the audit log.

        Raises:
            HTTPException: 400 Host or Origin is no address, 401 no or wrong token, 403 the token may not, or a page of
                another site sent it, 421 not addressed to this machine, 429 too many.
        """
        self._check_origin(request)
        client = address_block(request.client.host) if request.client else "unknown"
        role: Role = "admin"
        if self.tokens.needed:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            token = token.strip()
            known = self.tokens.role_of(token) if scheme.lower() == "bearer" else None
            if known is None:
                self._count(f"refused:{client}", 60.0)
                raise HTTPException(
                    401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )
            role, client = known, f"token:{token_digest(token)[:8]}"
            request.state.client_name = client
        request.state.role = role
        if self._settings.rate:
            self._count(client, self._settings.rate)
        if not may(role, needs):
            raise HTTPException(403, f"this token's role is {role!r}; this wants {needs!r}")
        if needs == "write" and self._settings.read_only:
            raise HTTPException(403, "this service was started with --read-only; it verifies and identifies")

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
        if not self.tokens.needed and not is_loopback(_address(f"//{host}", "Host").hostname or ""):
            # Without tokens a page elsewhere could point its own name at this machine and read everything.
            raise HTTPException(421, "without a token this service answers to 127.0.0.1 and localhost only")
        origin = request.headers.get("origin")
        if (
            origin
            and origin != "null"
            and origin not in self._settings.origins
            and _address(origin, "Origin").netloc != host
        ):
            raise HTTPException(403, "requests from pages of other sites are refused")
        if origin == "null":
            raise HTTPException(403, "requests from pages without an address are refused")
        if not origin and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise HTTPException(403, "requests from pages of other sites are refused")


def _address(text: str, header: str) -> SplitResult:
    """A header's address in parts.

    Raises:
        HTTPException: 400, it is none.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port  # is read, and found out of range, only when asked for
    except ValueError as error:
        raise HTTPException(400, f"the header {header} is no address") from error
    if "@" in parts.netloc:
        raise HTTPException(400, f"the header {header} is no address")
    return parts


def needs(role: Role | None) -> dict[str, Any]:
    """What a route's `openapi_extra` says of who may ask; None: anybody."""
    return {"x-role": role or "anybody", "security": [] if role is None else [{"token": []}]}


def route_admitted_by(
    admit: Callable[[Request, Role], Awaitable[None]], hold: Callable[[Request], AbstractAsyncContextManager[None]]
) -> type[APIRoute]:
    """A class of routes that ask `admit` before anything of the body is read; each must say `needs(role)`.

    `hold` then makes room for the body until the answer is made.
    """

    class AdmittedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle, role = super().get_route_handler(), (self.openapi_extra or {})["x-role"]

            async def admitted(request: Request) -> Response:
                if role != "anybody":
                    await admit(request, role)
                check_body(request)
                async with hold(request):
                    return await handle(StrictRequest(request.scope, request.receive))

            return admitted

    return AdmittedRoute
