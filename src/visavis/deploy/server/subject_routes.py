"""Routes about the subjects of the gallery: look, change, merge, forget."""

from __future__ import annotations

from typing import Annotated, Any, final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.exceptions import HTTPException

from visavis.deploy.gallery.retention import MAX_DAYS
from visavis.deploy.json_views import forgotten_json, merge_json, subject_json
from visavis.deploy.server.admission import needs
from visavis.deploy.server.request_fields import StrictModel
from visavis.deploy.server.service import Service

# What SQLite and PostgreSQL count rows with.
_LARGEST = 2**63 - 1
SubjectId = Annotated[int, Field(strict=True, ge=0, le=_LARGEST)]
SubjectNumber = Annotated[int, Path(ge=0, le=_LARGEST)]


class Change(StrictModel):
    """New values of a subject; what is left out stays."""

    name: str | None = Field(None, max_length=400)
    consent: str | None = Field(None, max_length=4000)
    retention_days: float | None = Field(None, gt=0, le=MAX_DAYS)


class Whom(StrictModel):
    """Subjects by number or by name."""

    ids: list[SubjectId] = Field(default_factory=list, max_length=1000)
    names: list[str] = Field(default_factory=list, max_length=1000)


@final
class SubjectRoutes:
    """Each tells the audit log which subjects it was about."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._handlers = service.handlers
        self._gallery = service.handlers.gallery

    def add_to(self, router: APIRouter) -> None:
        """Make the routes known."""
        read, write = needs("read"), needs("write")
        router.get("/subjects", openapi_extra=read)(self.subjects)
        router.get("/subjects/{number}", openapi_extra=read)(self.subject)
        router.get("/subjects/{number}/crop", response_class=Response, openapi_extra=read)(self.crop)
        router.patch("/subjects/{number}", openapi_extra=write)(self.change)
        router.post("/subjects/{number}/merge", openapi_extra=write)(self.merge)
        router.delete("/subjects/{number}", openapi_extra=write)(self.delete)
        router.post("/forget", openapi_extra=write)(self.forget)

    async def subjects(
        self,
        request: Request,
        query: str = Query("", max_length=200),
        offset: int = Query(0, ge=0, le=_LARGEST),
        limit: int = Query(50, ge=1, le=500),
    ) -> dict[str, Any]:
        """Subjects by name; `query` is any part of it."""
        found = await self._service.work(self._gallery.subjects, query.strip(), offset=offset, limit=limit)
        request.state.subjects = [subject.id for subject in found]
        return {"subjects": [subject_json(s) for s in found], "total": await self._service.work(len, self._gallery)}

    async def subject(self, request: Request, number: SubjectNumber) -> dict[str, Any]:
        """One subject."""
        request.state.subjects = [number]
        return subject_json(await self._service.work(self._gallery.subject, number))

    async def crop(self, request: Request, number: SubjectNumber) -> Response:
        """The kept crop of a subject as JPEG; 404 when crops are not kept."""
        request.state.subjects = [number]
        data = await self._service.work(self._gallery.crop, number)
        if data is None:
            raise HTTPException(404, "no crop is kept of this subject")
        return Response(data, media_type="image/jpeg")

    async def change(self, request: Request, number: SubjectNumber, change: Change) -> dict[str, Any]:
        """Rename a subject, change the consent note or the time it is kept."""
        values = change.model_dump(exclude_none=True)
        request.state.subjects, request.state.about = [number], {"changed": sorted(values)}
        return subject_json(await self._service.work(self._gallery.update, number, **values))

    async def merge(self, request: Request, number: SubjectNumber, others: Whom) -> dict[str, Any]:
        """Give the samples of others to this subject; they cease to exist. The earliest end and all notes hold."""
        request.state.subjects = [number, *others.ids]
        merged = await self._service.work(self._gallery.merge, number, *others.ids, *others.names)
        request.state.subjects = [number, *(subject.id for subject, _ in merged.absorbed)]
        return merge_json(merged)

    async def delete(self, request: Request, number: SubjectNumber) -> dict[str, Any]:
        """Forget one subject; the receipt says what was erased and that nothing is left."""
        request.state.subjects = [number]
        return forgotten_json(await self._service.work(self._handlers.forget, number))

    async def forget(self, request: Request, whom: Whom) -> dict[str, Any]:
        """Forget subjects by number or name; all or none."""
        if not whom.ids and not whom.names:
            raise HTTPException(400, "whom? give ids or names")
        request.state.subjects = whom.ids
        receipt = await self._service.work(self._handlers.forget, *whom.ids, *whom.names)
        request.state.subjects = list(receipt.ids)
        return forgotten_json(receipt)
