"""What a gallery answers with: frozen, plain values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from visavis._moved import renamed
from visavis.errors import DataError


class UnknownSubject(DataError):
    """Nobody of that name or number is enrolled."""


class StorageError(DataError):
    """The gallery's file cannot be read or written: full disk, damage, permissions, another writer.

    `public` says it to those who shall not learn where the gallery is kept; None where the message itself may.
    """

    public: str | None = None


class GalleryReplaced(StorageError):
    """Another file stands where the gallery was when it was opened, or none."""

    def __init__(self, path: object) -> None:
        super().__init__(f"{path}: the gallery was replaced while it was open; nothing is read or kept here: restart")


@dataclass(frozen=True)
class Subject:
    """One enrolled person. Times are seconds since 1970 (UTC); `expires` is None when kept without limit."""

    id: int
    name: str
    samples: int
    consent: str
    created: float
    expires: float | None


@dataclass(frozen=True)
class Sample:
    """One picture of a subject: the file it came from, if known, and which of the subject's templates it is part of.

    `quality` is None where nobody judged; `crop` says whether the picture is kept.
    """

    id: int
    subject: int
    source_name: str | None
    quality: float | None
    weight: float
    template: int
    created: float
    crop: bool


@dataclass(frozen=True)
class SourceFile:
    """The file a sample was taken from: SHA-256 of its bytes, and its name."""

    digest: bytes
    name: str


@dataclass(frozen=True)
class UnknownFace:
    """A face nobody knew: its quality, the digest of its crop, its file, when it was kept, and its encoded crop."""

    id: int
    quality: float | None
    image: bytes | None
    source: SourceFile | None
    created: float
    crop: bytes | None


@dataclass(frozen=True)
class Enrollment:
    """What enrolling did: pictures `added`, and those `already` there (same crop, same subject) and left alone."""

    subject: Subject
    added: int
    already: int


@dataclass(frozen=True)
class Merge:
    """What merging did: the subject `before` and after, and those it absorbed with the numbers of their samples."""

    before: Subject
    absorbed: tuple[tuple[Subject, tuple[int, ...]], ...]
    subject: Subject


@dataclass(frozen=True)
class Candidate:
    """A subject that resembles a probe; similarity is a cosine in [−1, 1]."""

    id: int
    name: str
    similarity: float


@dataclass(frozen=True)
class Identification:
    """An open-set answer: the candidates best first, and whether the best passes the threshold.

    `match` is None below the threshold ("unknown") and when there is no threshold at all; `decided` tells these apart.
    `fpir` is 1 − (1 − fmr)^N for the N subjects searched: about how often somebody not enrolled would be matched, an
    estimate as if comparisons were independent. `fpir_interval` is the same for the ends of the interval of `fmr`, None
    where the calibration has none. ISO/IEC 19795-1 calls it the false positive identification rate. `elsewhere` is the
    subject this face was most like, above the threshold, where another face of the same picture is more so.
    """

    candidates: tuple[Candidate, ...]
    match: Candidate | None
    decided: bool
    threshold: float | None
    fmr: float | None
    fpir: float | None
    searched: int
    fpir_interval: tuple[float, float] | None = None
    elsewhere: Candidate | None = None


@dataclass(frozen=True)
class Forgotten:
    """The receipt of an erasure: what was erased, and the search for what might be left.

    After the erasure `bytes_searched` bytes of `files` were searched for `fingerprints` pieces of the erased vectors,
    crops and names; `found` of them were still there. `complete` is false when some were, or when another process held
    on to the old state of the file, or when there are unknown faces that nobody compared with the subjects. `ids` are
    the numbers of the subjects erased, `tables` those that rows left: also `unknown_faces` of the same people did.
    """

    subjects: int
    samples: int
    crops: int
    index_rows: int
    files: tuple[str, ...]
    bytes_searched: int
    fingerprints: int
    found: int
    complete: bool
    note: str = ""
    unknown_faces: int = 0
    tables: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()


def tables_of(*, subjects: int, samples: int, unknown_faces: int) -> tuple[str, ...]:
    """Names of the tables from which so many rows were erased."""
    counts = {"subjects": subjects, "samples": samples, "unknown_faces": unknown_faces}
    return tuple(table for table, count in counts.items() if count)


@dataclass(frozen=True)
class Cluster:
    """Unknown faces taken for one person: their numbers and the lowest similarity of any two of them."""

    unknowns: tuple[int, ...]
    lowest: float


def decide(
    found: Sequence[tuple[Candidate, ...]],
    searched: int,
    threshold: float | None,
    fmr: float | None,
    fmr_interval: tuple[float, float] | None = None,
) -> list[Identification]:
    """Candidates of each probe as open-set answers: the best is a match when it reaches the threshold."""
    fpir = None if fmr is None else _fpir(fmr, searched)
    interval = None
    if fmr is not None and fmr_interval is not None:
        interval = (_fpir(fmr_interval[0], searched), _fpir(fmr_interval[1], searched))
    answers = []
    for candidates in found:
        passes = threshold is not None and bool(candidates) and candidates[0].similarity >= threshold
        match = candidates[0] if passes else None
        answers.append(
            Identification(candidates, match, threshold is not None, threshold, fmr, fpir, searched, interval)
        )
    return answers


def _fpir(fmr: float, searched: int) -> float:
    return 1 - (1 - fmr) ** searched


def damaged_subject(subject: int) -> StorageError:
    """What to say of a subject's row that is not as it was written."""
    return StorageError(
        f"the row of subject {subject} is damaged (its checksum does not fit); restore the gallery from a backup, or "
        f"erase the subject: visavis forget GALLERY --id {subject}"
    )


def damaged_sample(sample: int, subject: int) -> StorageError:
    """What to say of a sample that is not as it was written."""
    return StorageError(
        f"sample {sample} of subject {subject} is damaged (its checksum does not fit); restore the gallery from a "
        f"backup, or erase the subject: visavis forget GALLERY --id {subject}"
    )


__getattr__ = renamed(__name__, {"Enrolment": "Enrollment"})
