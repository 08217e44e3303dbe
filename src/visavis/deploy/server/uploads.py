"""Pictures out of a multipart request, in memory only: nothing a client sends names or becomes a file."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from visavis.deploy.server.request_fields import Form
from visavis.deploy.server.settings import ServiceSettings

# What messages call a picture; its own file name stays where it came from.
_LABELS = {"reference": "first picture", "probe": "second picture", "picture": "picture"}

_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Upload:
    """The parts of a request: pictures by field as (label, bytes), and text fields."""

    images: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def one(self, name: str) -> tuple[str, bytes]:
        """The only picture of a field."""
        found = self.images.get(name, [])
        if len(found) != 1:
            raise HTTPException(400, f"expected one picture in the field {name!r}, got {len(found)}")
        return found[0]

    def many(self, name: str) -> list[tuple[str, bytes]]:
        """The pictures of a field, at least one."""
        found = self.images.get(name, [])
        if not found:
            raise HTTPException(400, f"expected pictures in the field {name!r}, got none")
        return found

    def text(self, name: str, *, most: int = 65_536) -> str:
        """A text field of at most so many characters, empty when absent."""
        text = self.texts.get(name, "")
        if len(text) > most:
            raise HTTPException(400, f"the field {name!r} may have {most:,} characters, got {len(text):,}")
        return text

    def flag(self, name: str) -> bool:
        """A field that is true, yes, on or 1; false when absent, empty, false, no, off or 0."""
        text = self.texts.get(name, "").strip().lower()
        if text not in _YES and text not in _NO:
            raise HTTPException(400, f"the field {name!r} is true or false, {_got(text)}")
        return text in _YES

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A number from `low` to `high`, None when the field is absent or empty."""
        text = self.texts.get(name, "").strip()
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise HTTPException(400, f"the field {name!r} must be a number, {_got(text)}")
        value = float(text)
        if not low <= value <= high or math.isinf(value):
            raise HTTPException(400, f"the field {name!r} must lie between {low:g} and {high:g}, {_got(text)}")
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self.number(name, low, high)
        if value is not None and value != int(value):
            raise HTTPException(400, f"the field {name!r} must be a whole number, got {value:g}")
        return default if value is None else int(value)


def _got(text: str) -> str:
    return f"got {text!r}" if len(text) <= 20 else f"got {len(text):,} characters"


async def read_upload(request: Request, settings: ServiceSettings, form: Form) -> Upload:
    """Parse a multipart request.

    Raises:
        HTTPException: 400 damaged, too many parts, or a field this request has not; 413 too large (see `BodyLimit`);
            415 not multipart.
    """
    kind = request.headers.get("content-type", "nothing").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, f"expected multipart/form-data, got {kind[:40]}; {form.example}")

    class InMemoryParser(MultiPartParser):
        spool_max_size = settings.max_upload + 1  # or Starlette would put larger parts on the disk

    async def stream() -> AsyncGenerator[bytes, None]:
        async for part in request.stream():
            yield part

    parser = InMemoryParser(
        request.headers, stream(), max_files=settings.max_images, max_fields=32, max_part_size=65_536
    )
    try:
        parts = await parser.parse()
    except MultiPartException as error:
        if "maximum size" in error.message:
            raise HTTPException(400, f"a text field has more than 65,536 bytes; {form.example}") from error
        raise HTTPException(400, f"damaged multipart request: {error.message}") from error
    except FormParserError as error:  # which Starlette before 1.1 lets through
        raise HTTPException(400, f"damaged multipart request: {error}") from error
    except KeyError as error:
        raise HTTPException(400, "damaged multipart request: no boundary") from error
    upload = Upload()
    try:
        for name, value in parts.multi_items():
            form.check(name, is_file=isinstance(value, UploadFile), seen={*upload.images, *upload.texts})
            if isinstance(value, UploadFile):
                label = _LABELS.get(name, f"picture {len(upload.images.get(name, [])) + 1}")
                upload.images.setdefault(name, []).append((label, await value.read()))
            else:
                upload.texts[name] = value
    finally:
        await parts.close()
    return upload
