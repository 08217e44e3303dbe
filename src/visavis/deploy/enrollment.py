"""Enrolling pictures: every picture ends up enrolled, known already, or on a list with the reason why not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from visavis._moved import former_arguments, renamed
from visavis.deploy.face import Face
from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.records import Candidate, Enrollment, SourceFile, StorageError, UnknownSubject
from visavis.deploy.gallery.samples import SAME_IMAGE
from visavis.deploy.gallery.templates import similarity_to_rest
from visavis.deploy.gallery.unknowns import keep_unknowns
from visavis.deploy.recognizer import Recognizer, name_of
from visavis.errors import DataError
from visavis.files import is_reserved
from visavis.metrics.similarity import matches
from visavis.vision.images import encode

_DOMINANT = 4.0
Named = tuple[str, str]


@dataclass(frozen=True)
class ImageEnrollment:
    """What became of some pictures of one subject.

    `enrollment` is None when no picture was fit. `refused` and `doubts` pair a picture's name with reasons: those left
    out, and those enrolled though something is poor or they are unlike the subject's other pictures. `resembles` are
    other subjects above the threshold: perhaps the same person under another name. `looks` says how many samples each
    of the subject's templates has, the largest first: with several, these are looks of one person, or several people.
    """

    enrollment: Enrollment | None
    refused: tuple[Named, ...]
    doubts: tuple[Named, ...] = ()
    resembles: tuple[Candidate, ...] = ()
    looks: tuple[int, ...] = ()


@dataclass
class _Found:
    """Faces to enroll, each with its picture's name and file, and what was said of the others."""

    faces: list[Face] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sources: list[SourceFile | None] = field(default_factory=list)
    refused: list[Named] = field(default_factory=list)
    doubts: list[Named] = field(default_factory=list)
    known: int = 0


@former_arguments(pictures="images")
def enroll_images(
    recognizer: Recognizer,
    gallery: GalleryBase,
    subject: str,
    images: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    sources: Sequence[SourceFile | None] | None = None,
    aligned: bool = False,
    strict: bool = False,
    keep_crops: bool = False,
    consent: str = "",
    retention_days: float | None = None,
    threshold: float | None = None,
) -> ImageEnrollment:
    """Enroll the one face of each picture, weighted by its quality.

    Of several faces the large and central one is taken if it has four times the area of any other; otherwise who is
    meant cannot be told, and the picture is refused. A file the subject has a sample of is not looked at again. A new
    sample below the threshold to the template of all others of the subject (leave one out) is doubted.

    Args:
        recognizer: finds and embeds.
        gallery: receives.
        subject: the name.
        images: see `Recognizer`.
        names: what reports call them.
        sources: the file of each; taken from paths and encoded bytes when None.
        aligned: they are aligned crops.
        strict: refuse pictures with any quality reason, and those unlike the subject's others.
        keep_crops: store the crops in the gallery.
        consent, retention_days: see `GalleryBase.enroll`.
        threshold: the model's calibrated similarity.
    """
    files = [_source(image) for image in images] if sources is None else list(sources)
    known = gallery.known_sources(subject, files)
    found = _Found(known=sum(known))
    for i, image in enumerate(images):
        if not known[i]:
            _find_face(recognizer, image, name_of(image, i, names), files[i], found, aligned=aligned, strict=strict)
    if threshold is not None:
        _compare_with_own(gallery, subject, found, threshold, strict=strict)
    if not found.faces:
        there = Enrollment(gallery.subject(subject), added=0, already=found.known) if found.known else None
        return ImageEnrollment(there, tuple(found.refused))
    done = gallery.enroll(
        subject,
        [face.embedding for face in found.faces],
        weights=[face.quality.score for face in found.faces],
        images=[_digest(face) for face in found.faces],
        crops=[encode(face.crop, ".jpg") for face in found.faces] if keep_crops else None,
        sources=found.sources,
        consent=consent,
        retention_days=retention_days,
        threshold=threshold,
        same=SAME_IMAGE,
    )
    enrollment = Enrollment(done.subject, done.added, done.already + found.known)
    others, looks = (), ()
    try:
        others, looks = (
            _others_like(gallery, found.faces, done.subject.id, threshold),
            _samples_by_template(gallery, done.subject.id),
        )
    except StorageError as error:  # what was enrolled is kept, and to say otherwise would have it enrolled again
        found.doubts.append((subject, f"enrolled, but whom it resembles was not found out: {error.public or error}"))
    return ImageEnrollment(enrollment, tuple(found.refused), tuple(found.doubts), others, looks)


def keep_unknown_faces(
    gallery: GalleryBase, faces: Sequence[Face], sources: Sequence[SourceFile | None], *, keep_crops: bool = False
) -> list[int]:
    """Keep faces nobody knew, each with its quality and file, once; returns their numbers."""
    return keep_unknowns(
        gallery,
        [face.embedding for face in faces],
        qualities=[face.quality.score for face in faces],
        images=[_digest(face) for face in faces],
        crops=[encode(face.crop, ".jpg") for face in faces] if keep_crops else None,
        sources=sources,
    )


def source_file(path: str | os.PathLike[str]) -> SourceFile:
    """The digest and name of a file.

    Raises:
        OSError: it cannot be read.
    """
    if is_reserved(path):
        raise PermissionError(f"{os.fspath(path)}: the gallery's own file")
    with Path(path).open("rb") as file:
        return SourceFile(hashlib.file_digest(file, "sha256").digest(), Path(path).name)


def _digest(face: Face) -> bytes:
    return hashlib.sha256(face.crop.tobytes()).digest()


def _source(image: Any) -> SourceFile | None:
    if isinstance(image, bytes | bytearray | memoryview):
        return SourceFile(hashlib.sha256(image).digest(), "")
    try:
        return source_file(image) if isinstance(image, str | os.PathLike) else None
    except OSError:
        return None  # whoever looks at the picture says so


def _find_face(
    recognizer: Recognizer,
    image: Any,
    name: str,
    source: SourceFile | None,
    found: _Found,
    *,
    aligned: bool,
    strict: bool,
) -> None:
    """Find the face a picture is about, or the reason why it cannot be enrolled."""
    try:
        faces = recognizer.get(image, max_faces=2, aligned=aligned, name=name)
    except DataError as error:
        found.refused.append((name, str(error).removeprefix(f"{name}: ")))
        return
    if not faces:
        found.refused.append((name, "no face found"))
    elif len(faces) > 1 and (strict or _area(faces[0]) < _DOMINANT * _area(faces[1])):  # the largest of the others
        found.refused.append(
            (name, f"{faces[0].faces_in_image} faces, and which of them is meant cannot be told; cut one out")
        )
    elif strict and faces[0].reasons:
        found.refused.append((name, "; ".join(faces[0].reasons)))
    else:
        found.faces.append(faces[0])
        found.names.append(name)
        found.sources.append(source)
        turned = [f"turned by {faces[0].turned}° to stand upright"] if faces[0].turned else []
        said = [*faces[0].reasons, *turned]
        found.doubts += [(name, "; ".join(said))] if said else []


def _compare_with_own(gallery: GalleryBase, subject: str, found: _Found, threshold: float, *, strict: bool) -> None:
    """Doubt, or refuse, faces below the threshold to the template of all other samples of their subject."""
    if not found.faces:
        return
    fresh = np.stack([face.embedding for face in found.faces])
    weights = np.array([face.quality.score for face in found.faces])
    try:
        _, own, own_weights = gallery.sample_vectors(subject)
    except UnknownSubject:
        own, own_weights = fresh[:0], weights[:0]
    # A picture that is there already would vouch for itself.
    again = (fresh @ own.T).max(1) >= SAME_IMAGE if len(own) else np.zeros(len(fresh), bool)
    others = np.concatenate([own, fresh[~again]])
    similarity = similarity_to_rest(others, np.concatenate([own_weights, weights[~again]]))[len(own) :]
    fits = matches(similarity, threshold)
    unlike = {
        i: float(s)
        for i, s, fit in zip(np.flatnonzero(~again).tolist(), similarity, fits.tolist(), strict=True)
        if not fit
    }
    for i, s in unlike.items():
        reason = (
            f"unlike the subject's other pictures: similarity {s:.3f} to them, below the threshold {threshold:.3f}; "
            "another person, or another look?"
        )
        (found.refused if strict else found.doubts).append((found.names[i], reason))
    if strict:
        kept = [i for i in range(len(fresh)) if i not in unlike]
        found.faces = [found.faces[i] for i in kept]
        found.names = [found.names[i] for i in kept]
        found.sources = [found.sources[i] for i in kept]


def _others_like(
    gallery: GalleryBase, faces: Sequence[Face], subject: int, threshold: float | None
) -> tuple[Candidate, ...]:
    """Other subjects above the threshold, each with its highest similarity."""
    resembles: dict[int, Candidate] = {}
    if threshold is not None:
        for candidates in gallery.search([face.embedding for face in faces], top=3):
            for other in candidates:
                if other.id != subject and other.similarity >= threshold:
                    resembles[other.id] = max(other, resembles.get(other.id, other), key=lambda c: c.similarity)
    return tuple(resembles.values())


def _samples_by_template(gallery: GalleryBase, subject: int) -> tuple[int, ...]:
    numbers = [sample.template for sample in gallery.samples(subject)]
    return tuple(sorted((numbers.count(number) for number in set(numbers)), reverse=True))


def _area(face: Face) -> float:
    x1, y1, x2, y2 = (float(v) for v in face.box)
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)


__getattr__ = renamed(__name__, {"PictureEnrolment": "ImageEnrollment", "enroll_pictures": "enroll_images"})
