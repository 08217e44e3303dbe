"""What a request may hold: form fields, query parameters and JSON keys are named, any other is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from visavis.errors import unknown_name

_SHOWN = 40  # characters of a foreign name that an answer repeats


@dataclass(frozen=True)
class Form:
    """The fields of a multipart request.

    Args:
        images: field -> whether it takes several; all are required.
        texts: field -> what it says.
        required: text fields that must be there.
    """

    images: dict[str, bool]
    texts: dict[str, str]
    required: tuple[str, ...] = ()

    @property
    def openapi(self) -> dict[str, Any]:
        """OpenAPI's description."""
        one = {"type": "string", "format": "binary"}
        fields: dict[str, Any] = {
            name: {"type": "array", "items": one} if several else one for name, several in self.images.items()
        }
        fields |= {name: {"type": "string", "description": text} for name, text in self.texts.items()}
        schema = {"type": "object", "properties": fields, "required": [*self.images, *self.required]}
        return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}

    @property
    def example(self) -> str:
        """How pictures are sent."""
        parts = " ".join(f"-F {name}=@photo.jpg" for name in self.images)
        return f"send pictures as files of multipart/form-data, e.g. curl {parts} URL"

    def check(self, name: str, *, is_file: bool, seen: Iterable[str]) -> None:
        """Let a part pass.

        Raises:
            HTTPException: 400 for a field this request has not, one of the other kind, or a text given twice.
        """
        if name not in self.images and name not in self.texts:
            raise HTTPException(400, unknown_name("field", name[:_SHOWN], [*self.images, *self.texts]))
        if name in self.images and not is_file:
            raise HTTPException(400, f"the field {name!r} holds text (base64 or a data URL?); {self.example}")
        if name in self.texts and is_file:
            raise HTTPException(400, f"the field {name!r} is text, got a file")
        if name in seen and not self.images.get(name, False):
            raise HTTPException(400, f"the field {name!r} is there twice")


async def check_query(request: Request) -> None:
    """A dependency of every route: refuse query parameters it does not know (async: a plain one costs a thread).

    Raises:
        HTTPException: 400.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    valid = [field.alias for field in route.dependant.query_params]
    for name in request.query_params:
        if name not in valid:
            raise HTTPException(400, _unknown_parameter(name, valid, route))
        if "\ufffd" in request.query_params[name]:
            raise HTTPException(400, f"the query parameter {name!r} is no UTF-8")
        if len(request.query_params.getlist(name)) > 1:
            raise HTTPException(400, f"the query parameter {name!r} is there twice")


def _unknown_parameter(name: str, valid: list[str], route: APIRoute) -> str:
    content = (route.openapi_extra or {}).get("requestBody", {}).get("content", {})
    fields = content.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
    if name in fields:
        return f"{name!r} is a field of the form, not a query parameter; send it as: curl -F {name}=..."
    if valid:
        return unknown_name("query parameter", name[:_SHOWN], valid)
    return f"unknown query parameter {name[:_SHOWN]!r}; {route.path} takes none"


def check_body(request: Request) -> None:
    """Refuse a body where none is taken, and one that is no JSON where JSON is.

    Raises:
        HTTPException: 400, 415.
    """
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    if route.body_field is not None:
        kind = headers.get("content-type", "nothing").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise HTTPException(415, f"expected application/json, got {kind[:_SHOWN]}")
    elif "requestBody" not in (route.openapi_extra or {}):
        raise HTTPException(400, f"{request.method} {route.path} takes no body")


class StrictModel(BaseModel):
    """A JSON body that has no keys but its own."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                said = unknown_name("key", str(key)[:_SHOWN], cls.model_fields)
                raise PydanticCustomError("unknown_key", "{said}", {"said": said})
        return values

    @field_validator("*", mode="after")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        """JSON can spell half of a surrogate pair, which is no character and which no store takes."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise PydanticCustomError("no_text", "half a surrogate pair is no character")
        return value


class StrictRequest(Request):
    """A request whose JSON names every key once."""

    async def json(self) -> Any:
        """The body's JSON.

        Raises:
            HTTPException: 400 a key is there twice.
        """
        if not hasattr(self, "_json"):
            self._json = json.loads(await self.body(), object_pairs_hook=_without_repetition)
        return self._json


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise HTTPException(400, f"the key {key[:_SHOWN]!r} is there twice")
        made[key] = value
    return made
