"""What the service does for a request once it is admitted and its pictures are in memory; knows nothing of HTTP."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, final

import numpy as np

from visavis.deploy.enrollment import enroll_images
from visavis.deploy.face import Face
from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import Forgotten, Merge, SourceFile
from visavis.deploy.json_views import candidate_json, face_json, identification_json, subject_json, verification_json
from visavis.deploy.operating_point import HOW_TO, DecisionThreshold
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.server.batching import BatchingEmbedder
from visavis.deploy.server.settings import ServiceSettings
from visavis.errors import DataError, VisavisError
from visavis.models.caution import caution
from visavis.types import ByteArray
from visavis.vision.images import ReducedImage, decode_reduced, encode
from visavis.vision.images import count_pixels as pixels_of

Named = tuple[str, bytes]


@final
class RequestHandlers:
    """The recognizer, the gallery and the operator's settings together; methods may run in several threads."""

    def __init__(self, recognizer: Recognizer, gallery: GalleryBase, settings: ServiceSettings) -> None:
        self.embedder = BatchingEmbedder(recognizer.embedder)
        self.recognizer = Recognizer(
            self.embedder,
            spec=recognizer.spec,
            card=recognizer.card,
            detector=recognizer.detector,
            turn=recognizer.turn,
        )
        self.gallery = gallery
        self.settings = settings

    @property
    def identity(self) -> ModelIdentity | None:
        """Which model answers; None for one without a card or a digest."""
        try:
            return self.recognizer.identity
        except VisavisError:
            return None

    def close(self) -> None:
        """Finish the work at hand."""
        self.embedder.close()

    def point(self, fmr: float | None, threshold: float | None) -> DecisionThreshold | None:
        """The threshold of a request: its own, the operator's, or the card's."""
        own = threshold if threshold is not None else self.settings.threshold if fmr is None else None
        return self.recognizer.point(fmr=self.settings.fmr if fmr is None else fmr, threshold=own)

    def image(self, upload: Named) -> ReducedImage:
        """Decode a picture within the limits."""
        most = self.settings.max_pixels
        return decode_reduced(
            upload[1], name=upload[0], max_pixels=most, max_whole=most // 2, large=self.recognizer.large
        )

    def within_time(self) -> Callable[[Named], ReducedImage]:
        """`image` for the pictures of one request, in one thread, until they have taken the time they may.

        A picture's own cost is bounded; this bounds that of many.
        """
        begun = time.thread_time()

        def image(upload: Named) -> ReducedImage:
            used = time.thread_time() - begun
            if used > self.settings.max_seconds:
                raise DataError(
                    f"{upload[0]}: not looked at, those before it took {used:.1f} s of work; send fewer at a time"
                )
            return self.image(upload)

        return image

    def count_pixels(self, images: Sequence[Named]) -> int:
        """Pixels of pictures by their headers; 0 of one that cannot be read, which decoding says in its turn."""
        total = 0
        for name, data in images:
            with suppress(DataError):
                total += pixels_of(data, name=name)
        return total

    def forget(self, *who: int | str) -> Forgotten:
        """Erase subjects, and the unknown faces of the same people."""
        return self.gallery.forget(*who, threshold=self._own_threshold())

    def merge(self, into: int, *others: int | str) -> Merge:
        """Give the samples of others to a subject."""
        return self.gallery.merge(into, *others, threshold=self._own_threshold())

    def sweep(self) -> Forgotten | None:
        """Erase the subjects whose time is over."""
        return self.gallery.sweep(threshold=self._own_threshold())

    def _own_threshold(self) -> float | None:
        """The operator's threshold, or the card's."""
        point = self.point(None, None)
        return None if point is None else point.threshold

    def verify(
        self, reference: Named, probe: Named, *, fmr: float | None, threshold: float | None, aligned: bool, crops: bool
    ) -> dict[str, Any]:
        """1:1."""
        point = self.point(fmr, threshold)
        faces = [
            self.recognizer.best(self.image(upload), aligned=aligned, name=upload[0]) for upload in (reference, probe)
        ]
        result = self.recognizer.compare(faces[0], faces[1], point)
        answer = verification_json(result)
        if crops:
            for side, face in (("reference", result.reference), ("probe", result.probe)):
                answer[side] |= {"crop": _data_url(face.crop)}
        return answer

    def identify(
        self, image: Named, *, fmr: float | None, threshold: float | None, top: int, aligned: bool, crops: bool
    ) -> dict[str, Any]:
        """1:N for every face of a picture."""
        point = self.point(fmr, threshold)
        faces = self.recognizer.get(
            self.image(image), max_faces=self.settings.max_faces, aligned=aligned, name=image[0]
        )
        answers = []
        if faces:
            found = self.gallery.identify(
                np.stack([face.embedding for face in faces]),
                threshold=None if point is None else point.threshold,
                fmr=None if point is None else point.fmr,
                fmr_interval=None if point is None else point.fmr_interval,
                top=top,
                one_image=True,
            )
            for face, one in zip(faces, found, strict=True):
                answer = identification_json(face, one)
                if crops:
                    answer["face"]["crop"] = _data_url(face.crop)
                answers.append(answer)
        notes = [] if point is not None else [f"no decision: this model has no calibrated threshold; {HOW_TO}"]
        if said := caution(self.recognizer.card):
            notes.append(said)
        more = (faces[0].faces_in_image if faces else 0) - len(faces)
        if more > 0:
            notes.append(f"{more} smaller faces were not looked at; at most {self.settings.max_faces} are")
        return {"faces": answers, "notes": notes}

    def enroll(
        self,
        name: str,
        images: Sequence[Named],
        *,
        consent: str,
        retention_days: float | None,
        aligned: bool,
        strict: bool,
    ) -> dict[str, Any]:
        """Add pictures of a subject."""
        point, image = self.point(None, None), self.within_time()
        done = enroll_images(
            self.recognizer,
            self.gallery,
            name,
            [partial(image, upload) for upload in images],
            names=[upload[0] for upload in images],
            sources=[SourceFile(hashlib.sha256(upload[1]).digest(), "") for upload in images],
            aligned=aligned,
            strict=strict,
            keep_crops=self.settings.keep_crops,
            consent=consent,
            retention_days=retention_days,
            threshold=None if point is None else point.threshold,
        )
        return {
            "subject": None if done.enrollment is None else subject_json(done.enrollment.subject),
            "added": 0 if done.enrollment is None else done.enrollment.added,
            "already": 0 if done.enrollment is None else done.enrollment.already,
            "refused": [{"picture": p, "reason": r} for p, r in done.refused],
            "doubts": [{"picture": p, "reason": r} for p, r in done.doubts],
            "resembles": [candidate_json(c) for c in done.resembles],
            "looks": list(done.looks),
        }

    def embed(self, images: Sequence[Named], *, aligned: bool) -> dict[str, Any]:
        """Embeddings of the faces of every picture, the largest first where there are many."""
        image, most = self.within_time(), max(1, self.settings.max_faces // len(images))
        faces = self.recognizer.get_many(
            [partial(image, upload) for upload in images],
            max_faces=most,
            aligned=aligned,
            names=[upload[0] for upload in images],
        )
        more = sum(found[0].faces_in_image - len(found) for found in faces if found)
        return {
            "dim": self.recognizer.embedder.dim,
            "pictures": [[_embedding_json(f) for f in found] for found in faces],
            "notes": [f"{more} smaller faces were not embedded; at most {most} a picture are"] if more else [],
        }

    def about(self) -> dict[str, Any]:
        """What the model is and may be used for, and how this service treats people."""
        card = self.recognizer.card
        point = None if card is None or not (card.thresholds or self.settings.threshold) else self.point(None, None)
        return {
            "model": None
            if card is None
            else {
                "name": card.name,
                "backbone": card.backbone,
                "license": card.license.weights,
                "training_data": card.training_data,
                "intended_use": card.intended_use,
                "source": card.source,
                "evaluations": card.evaluations,
                "calibrated_at": sorted(card.thresholds),
            },
            "point": None if point is None else vars(point),
            "dim": self.recognizer.embedder.dim,
            "keeps_crops": self.settings.keep_crops,
            "encrypted": self.gallery.encrypted,
            "retention_days": self.gallery.retention_days,
            "max_upload": self.settings.max_upload,
            "needs_token": self.settings.wants_token,
        }


def _embedding_json(face: Face) -> dict[str, Any]:
    return {**face_json(face, all_faces=True), "embedding": [float(v) for v in face.embedding]}


def _data_url(crop: ByteArray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode(crop, ".jpg", quality=90)).decode()
