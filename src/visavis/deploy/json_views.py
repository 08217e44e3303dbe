"""Answers as plain values for JSON: the command line and the service say the same things in the same words."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from visavis.deploy.face import Face, Verification
from visavis.deploy.gallery.records import Candidate, Forgotten, Identification, Merge, Sample, Subject
from visavis.deploy.tracking import Track


def face_json(face: Face, *, all_faces: bool = False) -> dict[str, Any]:
    """Where a face is and how good it is; without crop and embedding.

    With `all_faces`, every face of the picture is answered for, and that there are several is nothing poor.
    """
    quality = face.quality
    return {
        "box": [round(float(v), 2) for v in face.box],
        "landmarks": [[round(float(v), 2) for v in point] for point in face.landmarks],
        "score": round(face.score, 4),
        "quality": round(quality.score, 4),
        "reasons": list(quality.reasons if all_faces else face.reasons),
        "pose": {"yaw": round(quality.yaw, 1), "pitch": round(quality.pitch, 1), "roll": round(quality.roll, 1)},
        "eye_distance": None if math.isnan(quality.eyes) else round(quality.eyes, 1),
        "sharpness": round(quality.sharpness, 4),
        "faces_in_picture": face.faces_in_image,
        "turned": face.turned,
    }


def verification_json(result: Verification) -> dict[str, Any]:
    """A 1:1 comparison."""
    return {
        "match": result.match,
        "similarity": result.similarity,
        "distance": result.distance,
        "threshold": result.threshold,
        "fmr": result.fmr,
        "probability": result.probability,
        "notes": list(result.notes),
        "reference": face_json(result.reference),
        "probe": face_json(result.probe),
    }


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """A subject that resembles a probe."""
    return {"id": candidate.id, "name": candidate.name, "similarity": candidate.similarity}


def identification_json(face: Face | None, answer: Identification) -> dict[str, Any]:
    """An open-set answer: `match` is null below the threshold, and when there is none (`decided` false)."""
    return {
        "match": None if answer.match is None else candidate_json(answer.match),
        "decided": answer.decided,
        "elsewhere": None if answer.elsewhere is None else candidate_json(answer.elsewhere),
        "candidates": [candidate_json(c) for c in answer.candidates],
        "threshold": answer.threshold,
        "fmr": answer.fmr,
        "fpir": answer.fpir,
        "fpir_interval": None if answer.fpir_interval is None else list(answer.fpir_interval),
        "searched": answer.searched,
        "face": None if face is None else face_json(face, all_faces=True),
    }


def subject_json(subject: Subject) -> dict[str, Any]:
    """A subject; times in ISO 8601, UTC."""
    return {
        "id": subject.id,
        "name": subject.name,
        "samples": subject.samples,
        "consent": subject.consent,
        "created": _iso(subject.created),
        "expires": None if subject.expires is None else _iso(subject.expires),
    }


def sample_json(sample: Sample) -> dict[str, Any]:
    """One sample of a subject."""
    return {
        "sample": sample.id,
        "source": sample.source_name,
        "quality": sample.quality,
        "weight": sample.weight,
        "template": sample.template,
        "crop": sample.crop,
        "created": _iso(sample.created),
    }


def merge_json(merge: Merge) -> dict[str, Any]:
    """The subject after merging, what became of its terms in words, and the samples of each that was absorbed."""
    return {
        **subject_json(merge.subject),
        "notes": merge_notes(merge),
        "absorbed": [{**subject_json(other), "sample_ids": list(ids)} for other, ids in merge.absorbed],
    }


def merge_notes(merge: Merge) -> list[str]:
    """What merging did to the time the subject is kept and to the consent note; empty when nothing differs."""
    before, after = merge.before, merge.subject
    notes = []
    if len({s.expires for s in (before, *(other for other, _ in merge.absorbed))}) > 1 and after.expires is not None:
        notes.append(f"kept until {_iso(after.expires)}, the earliest end of those merged")
    if after.consent != before.consent:
        notes.append(f"consent notes joined: {after.consent}")
    return notes


def forgotten_json(receipt: Forgotten) -> dict[str, Any]:
    """The receipt of an erasure."""
    return {**vars(receipt), "files": list(receipt.files), "tables": list(receipt.tables)}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def track_json(track: Track) -> dict[str, Any]:
    """A person's stay before a camera: seconds from the first frame, and what its template is made of."""
    return {
        "number": track.number,
        "start": round(track.start, 3),
        "end": round(track.end, 3),
        "best_time": round(track.best_time, 3),
        "frames": track.frames,
        "embeddings": track.samples,
    }
