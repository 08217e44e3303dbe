"""The page and what it loads: a fixed set of files, read once; a request's path never reaches the disk."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/web/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/web/parts.js": ("parts.js", "text/javascript; charset=utf-8"),
    "/web/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/web/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/web/style.css": ("style.css", "text/css; charset=utf-8"),
    "/favicon.ico": ("icon.svg", "image/svg+xml"),
}


def make_router() -> APIRouter:
    """One route per file."""
    router = APIRouter(include_in_schema=False)
    for path, (name, kind) in _FILES.items():
        data = files("visavis.deploy").joinpath("web", name).read_bytes()
        router.add_api_route(path, _answer(data, kind), methods=["GET"])
    return router


def _answer(data: bytes, kind: str):
    async def answer() -> Response:
        return Response(data, media_type=kind)

    return answer
