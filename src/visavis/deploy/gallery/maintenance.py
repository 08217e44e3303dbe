"""Looking over a whole gallery: doubles, how often strangers would be matched, export and import."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.deploy.gallery.records import Candidate, UnknownSubject
from visavis.deploy.gallery.retention import DAY, MAX_DAYS, joined_notes
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.metrics.intervals import wilson

_FORMAT = 1
_KEYS = {"about", "names", "consent", "created", "expires", "subject", "vectors", "weights"}


@dataclass(frozen=True)
class DuplicateSubjects:
    """Two subjects so alike that they may be one person."""

    first: Candidate
    second: Candidate


@dataclass(frozen=True)
class Fpir:
    """The false positive identification rate measured: of `probes` strangers, `matched` reached the threshold.

    `interval` is Wilson's.
    """

    rate: float
    probes: int
    matched: int
    threshold: float
    interval: tuple[float, float]


def duplicates(gallery: Gallery, threshold: float, *, limit: int = 1000) -> list[DuplicateSubjects]:
    """Pairs of subjects whose templates reach `threshold`, most alike first, at most `limit`.

    Every template is searched among all others: N²·D multiplications, in chunks.
    """
    pairs: dict[tuple[int, int], float] = {}
    with gallery.searchable() as index:
        n, ids = len(index), index.ids.copy()
        top = min(n, 11)
        for start in range(0, n, 256):
            similarity, row = index.vectors.search(index.vectors.rows(start, min(start + 256, n)), top)
            for i, (values, others) in enumerate(zip(similarity, row, strict=True)):
                for value, other in zip(values.tolist(), others.tolist(), strict=True):
                    if other != start + i and value >= threshold:
                        a, b = sorted((int(ids[start + i]), int(ids[other])))
                        pairs[a, b] = float(value)
    best = sorted(pairs.items(), key=lambda item: -item[1])[:limit]
    named = {i: gallery.subject(i).name for pair, _ in best for i in pair}
    return [DuplicateSubjects(Candidate(a, named[a], s), Candidate(b, named[b], s)) for (a, b), s in best]


def measure_fpir(gallery: Gallery, threshold: float, *, probes: int = 1000, seed: int = 0) -> Fpir:
    """How often a stranger would be matched in this very gallery.

    Each of `probes` subjects drawn without replacement plays the stranger: their template is searched among all others.
    This holds when no person is enrolled twice (see `duplicates`); templates of several pictures are a little more
    alike than single pictures, so that the rate errs upwards.

    Raises:
        DataError: fewer than 2 subjects.
    """
    with gallery.searchable() as index:
        n = len(index)
        if n < 2:
            raise DataError(f"{gallery.path}: measuring the FPIR wants at least 2 subjects, got {n}")
        chosen = np.random.default_rng(seed).permutation(n)[:probes]
        matched = 0
        for start in range(0, len(chosen), 64):
            rows = chosen[start : start + 64]
            vectors = np.concatenate([index.vectors.rows(int(r), int(r) + 1) for r in rows])
            similarity, found = index.vectors.search(vectors, 2)
            others = np.where(found == rows[:, None], -np.inf, similarity).max(1)
            matched += int((others >= threshold).sum())
    return Fpir(matched / len(chosen), len(chosen), matched, threshold, wilson(matched, len(chosen)))


def export_gallery(gallery: Gallery, path: str | os.PathLike[str]) -> int:
    """Write subjects and samples as .npz (plain arrays, no pickle), decrypted; returns how many subjects. No crops."""
    with gallery.store.read() as db:
        people = [(s.id, s.name, s.consent, s.created, s.expires) for s in gallery.everybody(db)]
        rows = db.execute("SELECT subject, vector, weight, id FROM samples ORDER BY subject, id").fetchall()
    place = {person[0]: i for i, person in enumerate(people)}
    about = {"format": _FORMAT, "model": vars(gallery.model)}
    vectors = [np.frombuffer(gallery.rows.unseal(row[1], "samples", "vector", row[3]), np.float32) for row in rows]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.array(json.dumps(about)),
        names=np.array([p[1] for p in people], dtype=np.str_),
        consent=np.array([p[2] for p in people], dtype=np.str_),
        created=np.array([p[3] for p in people], np.float64),
        expires=np.array([np.inf if p[4] is None else p[4] for p in people], np.float64),
        subject=np.array([place[row[0]] for row in rows], np.int64),
        vectors=np.stack(vectors) if vectors else np.empty((0, gallery.model.dim), np.float32),
        weights=np.array([row[2] for row in rows], np.float64),
    )
    write_atomically(Path(path), buffer.getvalue())
    return len(people)


def import_gallery(gallery: Gallery, path: str | os.PathLike[str]) -> int:
    """Add the subjects of an export to a gallery of the same model; those whose name is there gain the samples.

    Raises:
        DataError: not an export, damaged, or of another model; then nothing is added.
    """
    values = _read(path)
    model = json.loads(str(values["about"]))["model"]
    if model["digest"] != gallery.model.digest:
        raise DataError(
            f"{os.fspath(path)}: exported from the model {model['name']!r}, the gallery is for {gallery.model.name!r}"
        )
    names, subject, now = values["names"], values["subject"], _now()
    live = [i for i in range(len(names)) if values["expires"][i] > now]
    order = np.argsort(subject, kind="stable")
    bounds = np.searchsorted(subject[order], np.arange(len(names) + 1))
    added = 0
    for i in live:
        rows = order[bounds[i] : bounds[i + 1]]
        if len(rows):
            consent, days = _terms(gallery, str(names[i]), str(values["consent"][i]), float(values["expires"][i]))
            gallery.enroll(
                str(names[i]),
                values["vectors"][rows],
                weights=values["weights"][rows],
                pictures=[b"import:" + values["vectors"][row].tobytes()[:24] for row in rows],
                consent=consent,
                retention_days=days,
            )
            added += 1
    return added


def _terms(gallery: Gallery, name: str, consent: str, expires: float) -> tuple[str, float | None]:
    """The consent note and days to enrol an imported subject with: one who is there keeps the earlier end."""
    now, days = _now(), None
    try:
        there = gallery.subject(name)
    except UnknownSubject:
        there = None
    if np.isfinite(expires) and (there is None or there.expires is None or expires < there.expires):
        days = min((expires - now) / DAY, MAX_DAYS)
    return joined_notes([consent] if there is None else [there.consent, consent]), days


def _now() -> float:
    import time

    return time.time()


def _read(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            values = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise DataError(f"{os.fspath(path)}: expected a gallery export (.npz), cannot read it: {error}") from error
    except Exception as error:  # zipfile and zlib have errors of their own
        raise DataError(f"{os.fspath(path)}: damaged gallery export ({type(error).__name__}: {error})") from error
    if set(values) != _KEYS or json.loads(str(values["about"])).get("format") != _FORMAT:
        raise DataError(
            f"{os.fspath(path)}: expected a gallery export of format {_FORMAT}, got the keys {sorted(values)}"
        )
    n, m = len(values["names"]), len(values["vectors"])
    sizes = [len(values[k]) for k in ("consent", "created", "expires")] + [
        len(values[k]) for k in ("subject", "weights")
    ]
    if sizes != [n, n, n, m, m] or (m and not 0 <= values["subject"].min() <= values["subject"].max() < n):
        raise DataError(f"{os.fspath(path)}: the lists of this gallery export do not fit together")
    return values
