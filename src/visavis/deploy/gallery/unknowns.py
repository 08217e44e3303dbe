"""Faces nobody knew: kept when asked, each once, grouped later, and made subjects or erased."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.clustering import cluster
from visavis.deploy.gallery.index import Vector, unit_vectors
from visavis.deploy.gallery.records import Cluster, Enrollment, Forgotten, SourceFile, UnknownFace
from visavis.deploy.gallery.retention import DAY, checked_days
from visavis.deploy.gallery.samples import SAME_IMAGE, Samples
from visavis.deploy.gallery.table_access import Progress
from visavis.errors import DataError

_TABLE = "unknown_faces"
_BATCH = 4096


def keep_unknowns(
    gallery: GalleryBase,
    embeddings: Sequence[npt.ArrayLike],
    *,
    qualities: Sequence[float] | None = None,
    images: Sequence[bytes | None] | None = None,
    crops: Sequence[bytes | None] | None = None,
    sources: Sequence[SourceFile | None] | None = None,
) -> list[int]:
    """Store unknown faces for `cluster_unknowns`; one that is kept already (`SAME_IMAGE`) is not stored again.

    Args:
        gallery: keeps them.
        embeddings: (D,) each.
        qualities: of each, positive; adopting weighs by them.
        images: digest of each crop.
        crops: encoded crops to keep.
        sources: the file of each.

    Returns:
        The number of each face, also of those kept already.

    Raises:
        DataError: a face of another length, not finite; lists of different lengths.
    """
    if not len(embeddings):
        return []
    faces = Samples.checked(
        gallery.model.dim, np.stack([np.asarray(e) for e in embeddings]), qualities, images, crops, sources
    )
    rows, codec = [], gallery.rows
    with gallery.store.write() as db:
        numbers, best = _most_alike(gallery, db, faces.vectors)
        following = codec.next_id(db, _TABLE)
        for i, vector in enumerate(faces.vectors):
            before = faces.vectors[:i] @ vector
            if i and before.max() >= max(SAME_IMAGE, best[i]):
                numbers[i] = numbers[int(before.argmax())]
            elif best[i] < SAME_IMAGE:
                numbers[i] = following + len(rows)
                rows.append(_row(gallery, faces, i, numbers[i]))
        codec.insert(db, _TABLE, rows)
    return numbers


def known_unknowns(
    gallery: GalleryBase, embeddings: Sequence[npt.ArrayLike], threshold: float
) -> list[tuple[int, float] | None]:
    """Of the faces kept the number of the one most like each embedding (D,), and its similarity; None below it."""
    if not len(embeddings):
        return []
    vectors = unit_vectors(np.stack([np.asarray(e) for e in embeddings]), gallery.model.dim)
    with gallery.store.read() as db:
        numbers, best = _most_alike(gallery, db, vectors)
    return [(n, float(s)) if s >= threshold else None for n, s in zip(numbers, best.tolist(), strict=True)]


def _most_alike(gallery: GalleryBase, db: Any, vectors: Vector) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Of the faces kept the number of the one most like each of these, and its similarity."""
    numbers, best = np.zeros(len(vectors), np.int64), np.full(len(vectors), -2, np.float32)
    for ids, kept in _read(gallery, db):
        similarity = vectors @ kept.T
        at = similarity.argmax(1)
        value = similarity[np.arange(len(vectors)), at]
        numbers = np.where(value > best, np.array(ids)[at], numbers)
        best = np.maximum(value, best)
    return numbers.tolist(), best


def _row(gallery: GalleryBase, faces: Samples, i: int, number: int) -> tuple[Any, ...]:
    codec, source = gallery.rows, faces.sources[i]
    row = (
        number,
        codec.encrypt(faces.vectors[i].tobytes(), _TABLE, "vector", number),
        float(faces.weights[i]) if faces.rated else None,
        codec.digest(faces.marks[i]),
        None if source is None else codec.digest(source.digest),
        None if source is None else codec.encrypt_text(source.name, _TABLE, "source_name", number),
        time.time(),
    )
    return codec.with_crop(row, faces.crops[i], _TABLE)


def _read(gallery: GalleryBase, db: Any) -> Iterable[tuple[list[int], Vector]]:
    """Numbers and unit embeddings of the faces kept, in batches."""
    cursor = db.execute(f"SELECT id, vector FROM {_TABLE} ORDER BY id")
    while rows := cursor.fetchmany(_BATCH):
        plain = b"".join(gallery.rows.decrypt(row[1], _TABLE, "vector", row[0]) for row in rows)
        yield (
            [row[0] for row in rows],
            unit_vectors(np.frombuffer(plain, np.float32).reshape(len(rows), -1), gallery.model.dim),
        )


def read_unknowns(gallery: GalleryBase) -> tuple[list[int], Vector]:
    """Numbers and unit embeddings (n, D) of the unknown faces kept."""
    with gallery.store.read() as db:
        parts = list(_read(gallery, db))
    vectors = [part[1] for part in parts] or [np.empty((0, gallery.model.dim), np.float32)]
    return [number for ids, _ in parts for number in ids], np.concatenate(vectors)


def unknown_faces(gallery: GalleryBase, numbers: Sequence[int]) -> list[UnknownFace]:
    """What is known of unknown faces, in the order asked for, with their kept crops.

    Raises:
        DataError: there is none of such a number.
    """
    codec, faces = gallery.rows, {}
    with gallery.store.read() as db:
        for number in numbers:
            query = f"SELECT quality, picture, source, source_name, created, crop FROM {_TABLE} WHERE id = ?"
            row = db.execute(query, (int(number),)).fetchone()
            if row is None:
                raise DataError(f"{gallery.path}: there is no unknown face {number}; see: visavis gallery ... unknowns")
            quality, image, source, name, created, crop = row
            plain = None if crop is None else codec.decrypt(crop, _TABLE, "crop", number)
            digest = codec.plain_digest(source)
            known = (
                None if digest is None else SourceFile(digest, codec.text(name, _TABLE, "source_name", number) or "")
            )
            faces[number] = UnknownFace(number, quality, codec.plain_digest(image), known, created, plain)
    return [faces[number] for number in numbers]


def cluster_unknowns(gallery: GalleryBase, threshold: float, *, min_size: int = 2) -> list[Cluster]:
    """Group the unknown faces by person at the model's calibrated threshold; see `clustering.cluster`.

    Faces that resemble nobody else belong to no group.
    """
    ids, vectors = read_unknowns(gallery)
    groups = cluster(vectors, threshold, min_size=min_size)
    return [Cluster(tuple(ids[i] for i in group.members), group.lowest) for group in groups]


def adopt(
    gallery: GalleryBase,
    name: str,
    unknowns: Sequence[int],
    *,
    consent: str = "",
    retention_days: float | None = None,
    threshold: float | None = None,
) -> Enrollment:
    """Enroll unknown faces as a subject, weighed by their quality, with crops and files; they are unknown no more.

    Args:
        gallery: keeps them.
        name: the subject.
        unknowns: their numbers.
        consent: see `GalleryBase.enroll`.
        retention_days: see there.
        threshold: see there.

    Raises:
        DataError: no unknown face of such a number.
    """
    chosen = list(dict.fromkeys(unknowns))
    faces = unknown_faces(gallery, chosen)
    ids, vectors = read_unknowns(gallery)
    where = {unknown: i for i, unknown in enumerate(ids)}
    if not chosen:
        raise DataError(f"{gallery.path}: which unknown faces? give numbers; see: visavis gallery ... unknowns")
    qualities = [face.quality for face in faces if face.quality is not None]
    enrollment = gallery.enroll(
        name,
        vectors[[where[unknown] for unknown in chosen]],
        weights=qualities if len(qualities) == len(faces) else None,
        images=[face.image for face in faces],
        crops=[face.crop for face in faces],
        sources=[face.source for face in faces],
        consent=consent,
        retention_days=retention_days,
        threshold=threshold,
        same=SAME_IMAGE,
    )
    forget_unknowns(gallery, chosen)
    return enrollment


def forget_unknowns(
    gallery: GalleryBase,
    unknowns: Collection[int] | None = None,
    *,
    older_than_days: float | None = None,
    progress: Progress | None = None,
) -> Forgotten:
    """Erase unknown faces by number, by age, or all, with the search for what might be left as in `forget`.

    Raises:
        DataError: no valid period.
    """
    before = None if older_than_days is None else time.time() - checked_days(older_than_days) * DAY
    with gallery.store.write() as db:
        rows = db.execute(f"SELECT id, created FROM {_TABLE} ORDER BY id").fetchall()
        chosen = [
            number
            for number, created in rows
            if (unknowns is None or number in unknowns) and (before is None or created < before)
        ]
        traces = gallery._delete(db, [], [], chosen)
    return gallery._finish(traces, progress)


def drop_unknowns(
    gallery: GalleryBase, unknowns: Collection[int] | None = None, *, older_than_days: float | None = None
) -> int:
    """`forget_unknowns`; returns how many."""
    return forget_unknowns(gallery, unknowns, older_than_days=older_than_days).unknown_faces
