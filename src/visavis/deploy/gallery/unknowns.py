"""Faces nobody knew: kept as embeddings when asked, grouped later, and made subjects or erased."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.clustering import cluster
from visavis.deploy.gallery.records import Cluster, Enrolment
from visavis.deploy.gallery.retention import DAY, checked_days
from visavis.errors import DataError


def keep_unknowns(gallery: GalleryBase, embeddings: Sequence[npt.ArrayLike]) -> int:
    """Store embeddings (D,) of unknown faces for `cluster_unknowns`; returns how many."""
    rows = [np.asarray(e, np.float32) for e in embeddings]
    if any(row.shape != (gallery.model.dim,) or not np.isfinite(row).all() for row in rows):
        raise DataError(f"unknown faces want finite embeddings of length {gallery.model.dim}")
    if rows:
        table, codec = "unknown_faces", gallery.rows
        with gallery.store.write() as db:
            fresh = []
            for number, row in enumerate(rows, codec.next_id(db, table)):
                sealed = codec.seal(row.tobytes(), table, "vector", number)
                fresh.append(codec.with_crop((number, sealed, None, None, None, None, time.time()), None, table))
            codec.insert(db, table, fresh)
    return len(rows)


def read_unknowns(gallery: GalleryBase) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Numbers and embeddings (n, D) of the unknown faces kept."""
    with gallery.store.read() as db:
        rows = db.execute("SELECT id, vector FROM unknown_faces ORDER BY id").fetchall()
    vectors = [
        np.frombuffer(gallery.rows.unseal(row[1], "unknown_faces", "vector", row[0]), np.float32) for row in rows
    ]
    return [row[0] for row in rows], np.stack(vectors) if vectors else np.empty((0, gallery.model.dim), np.float32)


def cluster_unknowns(gallery: GalleryBase, threshold: float, *, min_size: int = 2) -> list[Cluster]:
    """Group the unknown faces by person at the model's calibrated threshold; see `clustering.cluster`.

    Faces that resemble nobody else belong to no group.
    """
    ids, vectors = read_unknowns(gallery)
    groups = cluster(vectors, threshold, min_size=min_size)
    return [Cluster(tuple(ids[i] for i in group.members), group.lowest) for group in groups]


def adopt(gallery: GalleryBase, name: str, unknowns: Sequence[int], *, consent: str = "") -> Enrolment:
    """Enrol unknown faces as a subject; they are unknown no more."""
    ids, vectors = read_unknowns(gallery)
    where = {unknown: i for i, unknown in enumerate(ids)}
    missing = [unknown for unknown in unknowns if unknown not in where]
    if missing or not unknowns:
        raise DataError(f"{gallery.path}: no unknown faces with the numbers {missing}")
    enrolment = gallery.enroll(name, vectors[[where[u] for u in unknowns]], consent=consent)
    drop_unknowns(gallery, unknowns)
    return enrolment


def drop_unknowns(
    gallery: GalleryBase, unknowns: Sequence[int] | None = None, *, older_than_days: float | None = None
) -> int:
    """Erase unknown faces by number, by age, or all; returns how many."""
    with gallery.store.write() as db:
        if unknowns is not None:
            count = sum(db.execute("DELETE FROM unknown_faces WHERE id = ?", (int(u),)).rowcount for u in unknowns)
        elif older_than_days is not None:
            before = time.time() - checked_days(older_than_days) * DAY
            count = db.execute("DELETE FROM unknown_faces WHERE created < ?", (before,)).rowcount
        else:
            count = db.execute("DELETE FROM unknown_faces").rowcount
    gallery.store.scrub()
    return count
