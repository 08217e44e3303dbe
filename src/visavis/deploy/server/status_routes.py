"""Routes about the service itself: model, audit log, health, metrics."""

from __future__ import annotations

from typing import Any, final

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from visavis.deploy.server.admission import needs
from visavis.deploy.server.roles import may
from visavis.deploy.server.service import Service
from visavis.deploy.server.telemetry import CONTENT_TYPE
from visavis.machine import resident_bytes


@final
class StatusRoutes:
    """What an operator asks."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._handlers = service.handlers
        self._gallery = service.handlers.gallery

    def add_to(self, router: APIRouter) -> None:
        """Make the routes known."""
        router.get("/model", openapi_extra=needs("match"))(self.model)
        router.get("/audit", openapi_extra=needs("admin"))(self.audit)
        router.get("/healthz", openapi_extra=needs(None))(self.healthz)
        router.get("/readyz", openapi_extra=needs(None))(self.readyz)
        router.get("/metrics", response_class=PlainTextResponse, openapi_extra=needs("read"))(self.metrics)

    async def model(self, request: Request) -> dict[str, Any]:
        """What the model is, its license, data, intended use and measured differences between groups."""
        role = request.state.role
        if self._service.settings.read_only and may(role, "write"):
            role = "read"  # what is refused is not offered
        return {**self._handlers.about(), "role": role}

    async def audit(self, request: Request, limit: int = Query(50, ge=1, le=1000)) -> dict[str, Any]:
        """The latest records of the audit log, and the number and digest of the last."""
        if self._service.audit is None:
            raise HTTPException(404, "this service keeps no audit log")
        records = await self._service.work(self._service.audit.latest, limit)
        return {
            "records": records,
            "last": {key: records[-1][key] for key in ("number", "digest")} if records else None,
        }

    async def healthz(self) -> dict[str, Any]:
        """Whether the process answers; open to all, asks neither a worker nor the gallery."""
        return {"status": "ok"}

    async def readyz(self) -> dict[str, Any]:
        """Whether a request would be worked on and the gallery reads; 503 when not. Open to all."""
        await self._service.ready()
        return {"status": "ready"}

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        gauges = {
            "subjects": float(await self._service.work(self._gallery.refresh)),
            "embedded_crops": float(self._handlers.embedder.crops),
            "embedded_batches": float(self._handlers.embedder.batches),
            "resident_bytes": resident_bytes(),
            "token_file_sound": float(self._service.gate.tokens.sound),
        }
        return Response(self._service.metrics.text(gauges), media_type=CONTENT_TYPE)
