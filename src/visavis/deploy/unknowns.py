"""Faces nobody knew: kept as embeddings when asked, grouped later, and made subjects or erased."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery import Gallery
from visavis.deploy.records import Cluster, Enrolment
from visavis.deploy.retention import DAY, checked_days
from visavis.errors import DataError


def keep_unknowns(gallery: Gallery, embeddings: Sequence[npt.ArrayLike]) -> int:
    """Store embeddings (D,) of unknown faces for `cluster_unknowns`; returns how many."""
    rows = [np.asarray(e, np.float32) for e in embeddings]
    if any(row.shape != (gallery.model.dim,) or not np.isfinite(row).all() for row in rows):
        raise DataError(f"unknown faces want finite embeddings of length {gallery.model.dim}")
    if rows:
        with gallery.store.write() as db:
            db.executemany(
                "INSERT INTO unknowns (vector, created) VALUES (?, ?)",
                [(gallery.seal(row.tobytes()), time.time()) for row in rows],
            )
    return len(rows)


def read_unknowns(gallery: Gallery) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Numbers and embeddings (n, D) of the unknown faces kept."""
    with gallery.store.read() as db:
        rows = db.execute("SELECT id, vector FROM unknowns ORDER BY id").fetchall()
    vectors = [np.frombuffer(gallery.unseal(row[1]), np.float32) for row in rows]
    return [row[0] for row in rows], np.stack(vectors) if vectors else np.empty((0, gallery.model.dim), np.float32)


def cluster_unknowns(gallery: Gallery, *, min_size: int = 2) -> list[Cluster]:
    """Group the unknown faces by HDBSCAN on the distance of unit vectors, ‖a − b‖ = √(2 − 2·a·b); largest group first.

    Faces that resemble nobody else belong to no cluster. Campello, Moulavi and Sander, PAKDD 2013, as in scikit-learn.

    Raises:
        DataError: scikit-learn is not installed, or `min_size` is below 2.
    """
    if min_size < 2:
        raise DataError(f"a cluster has at least 2 faces, got min_size = {min_size}")
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise DataError('clustering wants scikit-learn; type: pip install "visavis[gallery]"') from error
    ids, vectors = read_unknowns(gallery)
    if len(ids) < min_size:
        return []
    grouping = HDBSCAN(min_cluster_size=min_size, copy=True)  # pyright: ignore[reportArgumentType]
    labels = grouping.fit_predict(vectors.astype(float))
    clusters = []
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        centre = vectors[members].mean(0)
        cohesion = float((vectors[members] @ (centre / max(float(np.linalg.norm(centre)), 1e-12))).min())
        clusters.append(Cluster(tuple(ids[i] for i in members), cohesion))
    return sorted(clusters, key=lambda c: -len(c.unknowns))


def adopt(gallery: Gallery, name: str, unknowns: Sequence[int], *, consent: str = "") -> Enrolment:
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
    gallery: Gallery, unknowns: Sequence[int] | None = None, *, older_than_days: float | None = None
) -> int:
    """Erase unknown faces by number, by age, or all; returns how many."""
    with gallery.store.write() as db:
        if unknowns is not None:
            count = sum(db.execute("DELETE FROM unknowns WHERE id = ?", (int(u),)).rowcount for u in unknowns)
        elif older_than_days is not None:
            before = time.time() - checked_days(older_than_days) * DAY
            count = db.execute("DELETE FROM unknowns WHERE created < ?", (before,)).rowcount
        else:
            count = db.execute("DELETE FROM unknowns").rowcount
    gallery.store.scrub()
    return count
