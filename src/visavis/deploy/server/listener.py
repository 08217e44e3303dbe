"""How uvicorn is set up for the service."""

from __future__ import annotations

from typing import Any

import uvicorn
from starlette.types import ASGIApp


def server_config(app: ASGIApp, *, tls_cert: str | None = None, tls_key: str | None = None) -> uvicorn.Config:
    """Quiet, with 30 s to finish what was begun; who asks is found out by `proxies`, not by uvicorn.

    uvicorn's own `proxy_headers` believes everybody on this machine, and whomever FORWARDED_ALLOW_IPS names.
    """
    options: dict[str, Any] = {"ssl_certfile": tls_cert, "ssl_keyfile": tls_key} if tls_cert else {}
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=30,
        **options,
    )
