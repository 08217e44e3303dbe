"""Routes that take pictures: compare, search, enroll, embed."""

from __future__ import annotations

from typing import Any, final

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException

from visavis.deploy.gallery.retention import MAX_DAYS
from visavis.deploy.server.admission import needs
from visavis.deploy.server.disclosure import identification_decision, verification_decision
from visavis.deploy.server.request_fields import Form
from visavis.deploy.server.service import Service
from visavis.deploy.server.uploads import Upload, read_upload

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
        HTTPException: 400 both, 403 for a role that learns decisions only: trying thresholds finds the similarity.
    """
    given = [name for name in ("fmr", "threshold", "top") if form.text(name)]
    if request.state.role == "match" and given:
        raise HTTPException(403, f"the role 'match' takes the service's threshold; {given[0]} wants 'read'")
    fmr, threshold = form.number("fmr", 0, 1), form.number("threshold", -1, 1)
    if fmr is not None and threshold is not None:
        raise HTTPException(400, "fmr and threshold exclude each other; give one")
    return {"fmr": fmr, "threshold": threshold}


@final
class ImageRoutes:
    """Each reads its upload, hands over to the handlers, and answers what the role may know."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._handlers = service.handlers
        self._settings = service.settings

    def add_to(self, router: APIRouter) -> None:
        """Make the routes known."""
        router.post("/verify", openapi_extra=needs("match") | VERIFY.openapi)(self.verify)
        router.post("/identify", openapi_extra=needs("match") | IDENTIFY.openapi)(self.identify)
        router.post("/enroll", openapi_extra=needs("write") | ENROLL.openapi)(self.enroll)
        router.post("/embed", openapi_extra=needs("read") | EMBED.openapi)(self.embed)

    async def verify(self, request: Request) -> dict[str, Any]:
        """Whether two pictures show one person."""
        form = await read_upload(request, self._settings, VERIFY)
        pair = form.one("reference"), form.one("probe")
        answer = await self._service.analyze(
            self._handlers.verify,
            *pair,
            images=pair,
            **_decision(request, form),
            aligned=form.flag("aligned"),
            crops=form.flag("crops"),
        )
        self._service.metrics.verified(answer)
        return verification_decision(answer) if request.state.role == "match" else answer

    async def identify(self, request: Request) -> dict[str, Any]:
        """Who the people on a picture are."""
        form = await read_upload(request, self._settings, IDENTIFY)
        image = form.one("picture")
        answer = await self._service.analyze(
            self._handlers.identify,
            image,
            images=[image],
            **_decision(request, form),
            top=form.whole("top", 5, 1, 50),
            aligned=form.flag("aligned"),
            crops=form.flag("crops"),
        )
        self._service.metrics.identified(answer)
        request.state.subjects = [face["match"]["id"] for face in answer["faces"] if face["match"]]
        return identification_decision(answer) if request.state.role == "match" else answer

    async def enroll(self, request: Request) -> dict[str, Any]:
        """Add pictures of a subject, who is made when new; 422 when no picture was fit."""
        form = await read_upload(request, self._settings, ENROLL)
        days = form.number("retention_days")
        if days is not None and not 0 < days <= MAX_DAYS:
            raise HTTPException(400, f"retention_days must be above 0 and at most {MAX_DAYS:g}")
        images = form.many("pictures")
        answer = await self._service.analyze(
            self._handlers.enroll,
            form.text("name"),
            images,
            images=images,
            consent=form.text("consent", most=4000),
            retention_days=days,
            aligned=form.flag("aligned"),
            strict=form.flag("strict"),
        )
        if answer["subject"] is None:
            said = "; ".join(f"{r['picture']}: {r['reason']}" for r in answer["refused"])
            raise HTTPException(422, f"no picture was fit to enroll: {said}")
        request.state.subjects = [answer["subject"]["id"]]
        return answer

    async def embed(self, request: Request) -> dict[str, Any]:
        """Embeddings of every face of every picture, of length 1."""
        form = await read_upload(request, self._settings, EMBED)
        images = form.many("pictures")
        answer = await self._service.analyze(self._handlers.embed, images, images=images, aligned=form.flag("aligned"))
        self._service.metrics.embedded(answer)
        return answer
