"""A client of the service, for Python programs: the same verbs, the same answers, errors as VisavisError."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, final

from visavis._moved import former_arguments
from visavis.errors import DataError, VisavisError


class ServiceError(VisavisError):
    """The service refused or failed; `status` is its HTTP status, 0 when it was not reached."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@final
class Client:
    """Talks to `visavis serve`.

    A picture is what `Recognizer` takes: a path, a data URL, encoded bytes, an open file, a PIL image or an RGB array;
    files and bytes are sent as they are, the others as PNG. Answers are the service's JSON.

    Args:
        url: where it listens.
        token: from the operator; VISAVIS_TOKEN of the environment when None.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 60.0) -> None:
        try:
            import httpx
        except ImportError as error:
            raise DataError('the client wants httpx; type: pip install "visavis[serve]"') from error
        token = os.environ.get("VISAVIS_TOKEN") if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._errors = httpx.HTTPError
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=False)

    def verify(self, reference: Any, probe: Any, **options: Any) -> dict[str, Any]:
        """Whether two pictures show one person; options: fmr, threshold, aligned, crops."""
        return self._post("/verify", [("reference", reference), ("probe", probe)], options)

    @former_arguments(picture="image")
    def identify(self, image: Any, **options: Any) -> dict[str, Any]:
        """Who the people on a picture are; options: fmr, threshold, top, aligned, crops."""
        return self._post("/identify", [("picture", image)], options)

    @former_arguments(pictures="images")
    def enroll(self, name: str, images: Sequence[Any], **options: Any) -> dict[str, Any]:
        """Add pictures of a subject; options: consent, retention_days, aligned, strict."""
        return self._post("/enroll", [("pictures", image) for image in images], {"name": name, **options})

    @former_arguments(pictures="images")
    def embed(self, images: Sequence[Any], **options: Any) -> dict[str, Any]:
        """Embeddings of every face of every picture; options: aligned."""
        return self._post("/embed", [("pictures", image) for image in images], options)

    def subjects(self, query: str = "", *, offset: int = 0, limit: int = 50) -> dict[str, Any]:
        """Subjects whose name contains `query`."""
        return self._ask("GET", "/subjects", params={"query": query, "offset": offset, "limit": limit})

    def update(self, number: int, **changes: Any) -> dict[str, Any]:
        """Change a subject's name, consent or retention_days."""
        return self._ask("PATCH", f"/subjects/{int(number)}", json=changes)

    def forget(self, *who: str | int) -> dict[str, Any]:
        """Erase subjects by name or number; returns the receipt."""
        ids = [one for one in who if isinstance(one, int)]
        return self._ask("POST", "/forget", json={"ids": ids, "names": [one for one in who if isinstance(one, str)]})

    def model(self) -> dict[str, Any]:
        """What the service's model is and may be used for."""
        return self._ask("GET", "/model")

    def healthy(self) -> bool:
        """Whether the service answers."""
        try:
            return self._ask("GET", "/healthz")["status"] == "ok"
        except ServiceError:
            return False

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _post(self, path: str, images: list[tuple[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
        from visavis.vision.image_inputs import encoded

        parts = [(field, ("picture", encoded(image), "application/octet-stream")) for field, image in images]
        texts = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()}
        return self._ask("POST", path, files=parts, data=texts)

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except self._errors as error:
            raise ServiceError(f"{self._http.base_url}: the service cannot be reached ({error})", 0) from error
        try:
            answer = response.json()
        except ValueError:
            answer = {"error": f"no JSON, but {response.headers.get('content-type', 'nothing')}"}
        if response.is_error:
            named = response.headers.get("x-request-id") if response.status_code >= 500 else None
            where = f" (request {named} in the service's log)" if named else ""
            raise ServiceError(f"{response.status_code}: {answer.get('error', answer)}{where}", response.status_code)
        return answer
