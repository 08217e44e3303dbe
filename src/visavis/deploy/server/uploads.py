"""Pictures out of a multipart request, in memory only: nothing a client sends names or becomes a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from visavis.deploy.server.settings import ServiceSettings

# What messages call a picture; its own file name stays where it came from.
_LABELS = {"reference": "first picture", "probe": "second picture", "picture": "picture"}


@dataclass(frozen=True)
class Upload:
    """The parts of a request: pictures by field as (label, bytes), and text fields."""

    pictures: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def one(self, name: str) -> tuple[str, bytes]:
        """The only picture of a field."""
        found = self.pictures.get(name, [])
        if len(found) != 1:
            raise HTTPException(400, f"expected one picture in the field {name!r}, got {len(found)}")
        return found[0]

    def many(self, name: str) -> list[tuple[str, bytes]]:
        """The pictures of a field, at least one."""
        found = self.pictures.get(name, [])
        if not found:
            raise HTTPException(400, f"expected pictures in the field {name!r}, got none")
        return found

    def text(self, name: str, default: str = "") -> str:
        """A text field."""
        return self.texts.get(name, default)

    def flag(self, name: str) -> bool:
        """A field that is true, yes, on or 1."""
        return self.texts.get(name, "").strip().lower() in ("1", "true", "yes", "on")

    def number(self, name: str) -> float | None:
        """A number, None when the field is absent or empty."""
        text = self.texts.get(name, "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError as error:
            raise HTTPException(400, f"the field {name!r} must be a number, got {text[:40]!r}") from error
        if value != value or value in (float("inf"), float("-inf")):
            raise HTTPException(400, f"the field {name!r} must be a finite number")
        return value


async def read_upload(request: Request, settings: ServiceSettings) -> Upload:
    """Parse a multipart request.

    Raises:
        HTTPException: 400 not multipart, damaged or too many parts; 413 too large (see `BodyLimit`).
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(400, "expected pictures as multipart/form-data")

    class InMemory(MultiPartParser):
        spool_max_size = settings.max_upload + 1  # or Starlette would put larger parts on the disk

    async def stream() -> AsyncGenerator[bytes, None]:
        async for part in request.stream():
            yield part

    parser = InMemory(request.headers, stream(), max_files=settings.max_pictures, max_fields=32, max_part_size=65_536)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"damaged multipart request: {error.message}") from error
    except KeyError as error:
        raise HTTPException(400, "damaged multipart request: no boundary") from error
    upload = Upload()
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                label = _LABELS.get(name, f"picture {len(upload.pictures.get(name, [])) + 1}")
                upload.pictures.setdefault(name, []).append((label, await value.read()))
            else:
                upload.texts[name] = value
    finally:
        await form.close()
    return upload
