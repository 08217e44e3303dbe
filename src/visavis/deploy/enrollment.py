"""Enrolling pictures: every picture ends up enrolled or on a list with the reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from visavis.deploy.face import Face
from visavis.deploy.gallery.records import Candidate, Enrolment
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer, name_of
from visavis.errors import DataError
from visavis.vision.images import encode

_DOMINANT = 4.0


@dataclass(frozen=True)
class PictureEnrolment:
    """What became of some pictures of one subject.

    `enrolment` is None when no picture was fit. `refused` and `doubts` pair a picture's name with reasons: those left
    out, and those enrolled though something is poor. `resembles` are other subjects above the threshold: perhaps the
    same person under another name.
    """

    enrolment: Enrolment | None
    refused: tuple[tuple[str, str], ...]
    doubts: tuple[tuple[str, str], ...]
    resembles: tuple[Candidate, ...]


def enroll_pictures(
    recognizer: Recognizer,
    gallery: Gallery,
    subject: str,
    pictures: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    aligned: bool = False,
    strict: bool = False,
    keep_crops: bool = False,
    consent: str = "",
    retention_days: float | None = None,
    threshold: float | None = None,
) -> PictureEnrolment:
    """Enrol the one face of each picture, weighted by its quality.

    Where a picture shows several faces, the large and central one is taken if it has four times the area of any other,
    and the picture refused if not: which of them the subject is cannot be told.

    Args:
        recognizer: finds and embeds.
        gallery: receives.
        subject: the name.
        pictures: see `Recognizer`.
        names: what reports call them.
        aligned: they are aligned crops.
        strict: refuse pictures with any quality reason.
        keep_crops: store the crops in the gallery.
        consent: note why this person may be enrolled.
        retention_days: see `Gallery.enroll`.
        threshold: similarity above which another subject is reported under `resembles`.
    """
    faces: list[Face] = []
    refused: list[tuple[str, str]] = []
    doubts: list[tuple[str, str]] = []
    for i, picture in enumerate(pictures):
        name = name_of(picture, i, names)
        try:
            found = recognizer.get(picture, max_faces=2, aligned=aligned, name=name)
        except DataError as error:
            refused.append((name, str(error).removeprefix(f"{name}: ")))
            continue
        if not found:
            refused.append((name, "no face found"))
        elif len(found) > 1 and (strict or _area(found[0]) < _DOMINANT * _area(found[1])):  # the largest of the others
            refused.append((name, f"{found[0].of} faces, and which of them is meant cannot be told; cut one out"))
        elif strict and found[0].reasons:
            refused.append((name, "; ".join(found[0].reasons)))
        else:
            faces.append(found[0])
            said = [*found[0].reasons, *([f"turned by {found[0].turned}° to stand upright"] if found[0].turned else [])]
            doubts += [(name, "; ".join(said))] if said else []
    if not faces:
        return PictureEnrolment(None, tuple(refused), (), ())
    embeddings = [face.embedding for face in faces]
    enrolment = gallery.enroll(
        subject,
        embeddings,
        weights=[face.quality.score for face in faces],
        pictures=[hashlib.sha256(face.crop.tobytes()).digest() for face in faces],
        crops=[encode(face.crop, ".jpg") for face in faces] if keep_crops else None,
        consent=consent,
        retention_days=retention_days,
    )
    resembles: dict[int, Candidate] = {}
    if threshold is not None:
        for candidates in gallery.search(embeddings, top=3):
            for other in candidates:
                if other.id != enrolment.subject.id and other.similarity >= threshold:
                    resembles[other.id] = max(other, resembles.get(other.id, other), key=lambda c: c.similarity)
    return PictureEnrolment(enrolment, tuple(refused), tuple(doubts), tuple(resembles.values()))


def _area(face: Face) -> float:
    x1, y1, x2, y2 = (float(v) for v in face.box)
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)
