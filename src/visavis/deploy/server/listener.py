"""How uvicorn is set up for the service."""

from __future__ import annotations

from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from visavis.deploy.server.connections import BoundedConnection


def server_config(
    app: ASGIApp, *, tls_cert: str | None = None, tls_key: str | None = None, max_connections: int = 256
) -> uvicorn.Config:
    """Quiet, with bounded connections and 30 s to finish what was begun; who asks is found out by `proxies`.

    uvicorn's own `proxy_headers` believes everybody on this machine, and whomever FORWARDED_ALLOW_IPS names.
    """
    options: dict[str, Any] = {"ssl_certfile": tls_cert, "ssl_keyfile": tls_key} if tls_cert else {}
    return uvicorn.Config(
        app,
        http=partial(BoundedConnection, most=max_connections),  # type: ignore[arg-type]  # a class, with an argument
        ws="none",
        backlog=min(128, max_connections),  # accepted in one go, before any can be closed for another
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=30,
        **options,
    )
