"""All routes but the page's; each says whom it admits, which is asked before anything of the request is read."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from visavis.deploy.server.admission import route_admitted_by
from visavis.deploy.server.image_routes import ImageRoutes
from visavis.deploy.server.request_fields import check_query
from visavis.deploy.server.service import Service
from visavis.deploy.server.status_routes import StatusRoutes
from visavis.deploy.server.subject_routes import SubjectRoutes


class ErrorAnswer(BaseModel):
    """Every answer that is no success."""

    error: str


def make_router(service: Service) -> APIRouter:
    """The routes over a service."""
    router = APIRouter(
        route_class=route_admitted_by(service.admit, service.hold),
        dependencies=[Depends(check_query)],
        responses={"default": {"model": ErrorAnswer, "description": "What went wrong, in one line"}},
    )
    for routes in (ImageRoutes(service), SubjectRoutes(service), StatusRoutes(service)):
        routes.add_to(router)
    return router
