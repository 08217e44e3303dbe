"""What Prometheus reads: requests and their time, and what the model says of the faces it sees, so that drift shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from visavis import __version__
from visavis.deploy.gallery.model_identity import ModelIdentity

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIMILARITY = tuple(round(-0.2 + 0.05 * i, 2) for i in range(25))
_QUALITY = tuple(round(0.1 * i, 1) for i in range(1, 11))
_RECENT = 1000  # decided faces that the share of unknown is taken over

Task = Literal["verify", "identify", "embed"]


class Metrics:
    """The counters of one service.

    Args:
        model: whose answers are counted; the first 12 digits of its digest are a label of everything it says.
    """

    def __init__(self, model: ModelIdentity | None) -> None:
        self.registry = CollectorRegistry()
        self._model = "none" if model is None else model.digest[:12]
        self._requests = self._counter("requests", "Requests answered", "route", "status")
        self._seconds = self._histogram("request_seconds", "Time until the answer was sent", _SECONDS, "route")
        self._similarity = self._histogram(
            "similarity",
            "Cosine similarity of a pair, or of a face to its best candidate",
            _SIMILARITY,
            "model",
            "task",
        )
        self._quality = self._histogram("face_quality", "Quality score of faces looked at", _QUALITY, "model", "task")
        self._reasons = self._counter("face_reasons", "What was poor about faces looked at", "model", "task", "reason")
        self._decisions = self._counter("decisions", "Decisions taken", "model", "task", "outcome")
        self._unknown = Gauge(
            "visavis_unknown_share",
            f"Share of unknown among the last {_RECENT} faces decided by identify",
            ["model"],
            registry=self.registry,
        )
        self._recent: deque[bool] = deque(maxlen=_RECENT)
        self._gauges: dict[str, Gauge] = {}
        about = Gauge("visavis_model_info", "The model in use", ["model", "name", "version"], registry=self.registry)
        about.labels(self._model, "none" if model is None else model.name, __version__).set(1)

    def record(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def verified(self, answer: Mapping[str, Any]) -> None:
        """Count a 1:1 answer."""
        outcome = {True: "match", False: "no match", None: "undecided"}[answer["match"]]
        self._decisions.labels(self._model, "verify", outcome).inc()
        self._similarity.labels(self._model, "verify").observe(answer["similarity"])
        for side in ("reference", "probe"):
            self._face("verify", answer[side])

    def identified(self, answer: Mapping[str, Any]) -> None:
        """Count the faces of a 1:N answer."""
        for face in answer["faces"]:
            outcome = "match" if face["match"] else "unknown" if face["decided"] else "undecided"
            self._decisions.labels(self._model, "identify", outcome).inc()
            if face["candidates"]:
                self._similarity.labels(self._model, "identify").observe(face["candidates"][0]["similarity"])
            if face["decided"]:
                self._recent.append(face["match"] is None)
                self._unknown.labels(self._model).set(sum(self._recent) / len(self._recent))
            self._face("identify", face["face"])

    def embedded(self, answer: Mapping[str, Any]) -> None:
        """Count the faces of an answer with embeddings."""
        for faces in answer["pictures"]:
            for face in faces:
                self._face("embed", face)

    def text(self, gauges: Mapping[str, float]) -> bytes:
        """Everything, with gauges of the moment, in the text format."""
        for name, value in gauges.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"visavis_{name}", name.replace("_", " "), registry=self.registry)
            self._gauges[name].set(value)
        return generate_latest(self.registry)

    def _face(self, task: Task, face: Mapping[str, Any]) -> None:
        self._quality.labels(self._model, task).observe(face["quality"])
        for reason in face["reasons"]:  # "blurred: sharpness 0.012, ...": the kind stands before the colon
            self._reasons.labels(self._model, task, reason.partition(":")[0]).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"visavis_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"visavis_{name}", text, labels, buckets=buckets, registry=self.registry)
