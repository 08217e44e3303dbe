"""The routes of the service; each says whom it admits, reads its upload, hands over to the handlers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from visavis.deploy.gallery.retention import MAX_DAYS
from visavis.deploy.json_views import forgotten_json, merge_json, subject_json
from visavis.deploy.server.admission import needs, route_admitted_by
from visavis.deploy.server.disclosure import identification_decision, verification_decision
from visavis.deploy.server.request_fields import Form, StrictModel, check_query
from visavis.deploy.server.service import Service
from visavis.deploy.server.telemetry import CONTENT_TYPE
from visavis.deploy.server.uploads import Upload, read_upload
from visavis.machine import resident_bytes

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


_ALIGNED = {"aligned": "true: the pictures are aligned crops already"}
_POINT = {
    "fmr": "false match rate to decide at; the model must be calibrated there",
    "threshold": "cosine similarity to decide at instead",
    **_ALIGNED,
    "crops": "true: with crops",
}
VERIFY = Form({"reference": False, "probe": False}, _POINT)
IDENTIFY = Form({"picture": False}, _POINT | {"top": "candidates, 1 to 50 (5)"})
ENROLL = Form(
    {"pictures": True},
    {
        "name": "the subject",
        "consent": "why this person may be enrolled",
        "retention_days": "erase after so many days; left out, the end of a subject who is there stays",
        **_ALIGNED,
        "strict": "true: refuse pictures of poor quality",
    },
    ("name",),
)
EMBED = Form({"pictures": True}, _ALIGNED)


def _decision(request: Request, form: Upload) -> dict[str, float | None]:
    """At which rate or similarity a request wants to be decided.

    Raises:
        HTTPException: 400 both, 403 for a role that would find out similarities by trying thresholds.
    """
    if request.state.role == "match" and (form.text("fmr") or form.text("threshold")):
        raise HTTPException(403, "the role 'match' takes the service's threshold; fmr and threshold want 'read'")
    fmr, threshold = form.number("fmr", 0, 1), form.number("threshold", -1, 1)
    if fmr is not None and threshold is not None:
        raise HTTPException(400, "fmr and threshold exclude each other; give one")
    return {"fmr": fmr, "threshold": threshold}


def make_router(service: Service) -> APIRouter:
    """All routes but the page's."""
    router = APIRouter(route_class=route_admitted_by(service.admit, service.hold), dependencies=[Depends(check_query)])
    handlers, gallery, settings = service.handlers, service.handlers.gallery, service.settings

    @router.post(
        "/verify",
        openapi_extra=needs("match") | VERIFY.openapi,
    )
    async def verify(request: Request) -> dict[str, Any]:
        """Whether two pictures show one person."""
        form = await read_upload(request, settings, VERIFY)
        pair = form.one("reference"), form.one("probe")
        answer = await service.look(
            handlers.verify,
            *pair,
            pictures=pair,
            **_decision(request, form),
            aligned=form.flag("aligned"),
            crops=form.flag("crops"),
        )
        service.metrics.verified(answer)
        return verification_decision(answer) if request.state.role == "match" else answer

    @router.post(
        "/identify",
        openapi_extra=needs("match") | IDENTIFY.openapi,
    )
    async def identify(request: Request) -> dict[str, Any]:
        """Who the people on a picture are."""
        form = await read_upload(request, settings, IDENTIFY)
        picture = form.one("picture")
        answer = await service.look(
            handlers.identify,
            picture,
            pictures=[picture],
            **_decision(request, form),
            top=form.whole("top", 5, 1, 50),
            aligned=form.flag("aligned"),
            crops=form.flag("crops"),
        )
        service.metrics.identified(answer)
        request.state.subjects = [face["match"]["id"] for face in answer["faces"] if face["match"]]
        return identification_decision(answer) if request.state.role == "match" else answer

    @router.post(
        "/enroll",
        openapi_extra=needs("write") | ENROLL.openapi,
    )
    async def enroll(request: Request) -> dict[str, Any]:
        """Add pictures of a subject, who is made when new; 422 when no picture was fit."""
        form = await read_upload(request, settings, ENROLL)
        days = form.number("retention_days")
        if days is not None and not 0 < days <= MAX_DAYS:
            raise HTTPException(400, f"retention_days must be above 0 and at most {MAX_DAYS:g}")
        pictures = form.many("pictures")
        answer = await service.look(
            handlers.enroll,
            form.text("name"),
            pictures,
            pictures=pictures,
            consent=form.text("consent", most=4000),
            retention_days=days,
            aligned=form.flag("aligned"),
            strict=form.flag("strict"),
        )
        if answer["subject"] is None:
            said = "; ".join(f"{r['picture']}: {r['reason']}" for r in answer["refused"])
            raise HTTPException(422, f"no picture was fit to enrol: {said}")
        request.state.subjects = [answer["subject"]["id"]]
        return answer

    @router.post("/embed", openapi_extra=needs("read") | EMBED.openapi)
    async def embed(request: Request) -> dict[str, Any]:
        """Embeddings of every face of every picture, of length 1."""
        form = await read_upload(request, settings, EMBED)
        pictures = form.many("pictures")
        answer = await service.look(handlers.embed, pictures, pictures=pictures, aligned=form.flag("aligned"))
        service.metrics.embedded(answer)
        return answer

    @router.get("/subjects", openapi_extra=needs("read"))
    async def subjects(
        request: Request,
        query: str = Query("", max_length=200),
        offset: int = Query(0, ge=0, le=_LARGEST),
        limit: int = Query(50, ge=1, le=500),
    ) -> dict[str, Any]:
        """Subjects by name; `query` is any part of it."""
        found = await service.work(gallery.subjects, query.strip(), offset=offset, limit=limit)
        request.state.subjects = [subject.id for subject in found]
        return {"subjects": [subject_json(s) for s in found], "total": await service.work(len, gallery)}

    @router.get("/subjects/{number}", openapi_extra=needs("read"))
    async def subject(request: Request, number: SubjectNumber) -> dict[str, Any]:
        """One subject."""
        request.state.subjects = [number]
        return subject_json(await service.work(gallery.subject, number))

    @router.get("/subjects/{number}/crop", response_class=Response, openapi_extra=needs("read"))
    async def crop(request: Request, number: SubjectNumber) -> Response:
        """The kept crop of a subject as JPEG; 404 when crops are not kept."""
        request.state.subjects = [number]
        data = await service.work(gallery.crop, number)
        if data is None:
            raise HTTPException(404, "no crop is kept of this subject")
        return Response(data, media_type="image/jpeg")

    @router.patch("/subjects/{number}", openapi_extra=needs("write"))
    async def change(request: Request, number: SubjectNumber, change: Change) -> dict[str, Any]:
        """Rename a subject, change the consent note or the time it is kept."""
        values = change.model_dump(exclude_none=True)
        request.state.subjects, request.state.about = [number], {"changed": sorted(values)}
        return subject_json(await service.work(gallery.update, number, **values))

    @router.post("/subjects/{number}/merge", openapi_extra=needs("write"))
    async def merge(request: Request, number: SubjectNumber, others: Whom) -> dict[str, Any]:
        """Give the samples of others to this subject; they cease to exist. The earliest end and all notes hold."""
        request.state.subjects = [number, *others.ids]
        merged = await service.work(gallery.merge, number, *others.ids, *others.names)
        request.state.subjects = [number, *(subject.id for subject, _ in merged.absorbed)]
        return merge_json(merged)

    @router.delete("/subjects/{number}", openapi_extra=needs("write"))
    async def delete(request: Request, number: SubjectNumber) -> dict[str, Any]:
        """Forget one subject; the receipt says what was erased and that nothing is left."""
        request.state.subjects = [number]
        return forgotten_json(await service.work(handlers.forget, number))

    @router.post("/forget", openapi_extra=needs("write"))
    async def forget(request: Request, whom: Whom) -> dict[str, Any]:
        """Forget subjects by number or name; all or none."""
        if not whom.ids and not whom.names:
            raise HTTPException(400, "whom? give ids or names")
        request.state.subjects = whom.ids
        receipt = await service.work(handlers.forget, *whom.ids, *whom.names)
        request.state.subjects = list(receipt.ids)
        return forgotten_json(receipt)

    @router.get("/model", openapi_extra=needs("match"))
    async def model(request: Request) -> dict[str, Any]:
        """What the model is, its licence, data, intended use and measured differences between groups."""
        return {**handlers.about(), "role": request.state.role}

    @router.get("/audit", openapi_extra=needs("admin"))
    async def audit(request: Request, limit: int = Query(50, ge=1, le=1000)) -> dict[str, Any]:
        """The latest records of the audit log, and the number and digest of the last."""
        if service.audit is None:
            raise HTTPException(404, "this service keeps no audit log")
        records = await service.work(service.audit.latest, limit)
        return {
            "records": records,
            "last": {key: records[-1][key] for key in ("number", "digest")} if records else None,
        }

    @router.get("/healthz", openapi_extra=needs(None))
    async def healthz() -> dict[str, Any]:
        """Whether the process answers; open to all, asks neither a worker nor the gallery."""
        return {"status": "ok"}

    @router.get("/readyz", openapi_extra=needs(None))
    async def readyz() -> dict[str, Any]:
        """Whether a request would be worked on and the gallery reads; 503 when not. Open to all."""
        await service.ready()
        return {"status": "ready"}

    @router.get("/metrics", response_class=PlainTextResponse, openapi_extra=needs("read"))
    async def metrics(request: Request) -> Response:
        """Counters for Prometheus."""
        gauges = {
            "subjects": float(await service.work(gallery.refresh)),
            "embedded_crops": float(handlers.embedder.crops),
            "embedded_batches": float(handlers.embedder.batches),
            "resident_bytes": resident_bytes(),
        }
        return Response(service.metrics.text(gauges), media_type=CONTENT_TYPE)

    return router
