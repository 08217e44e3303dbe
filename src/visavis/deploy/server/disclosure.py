"""What an answer holds for a role: `match` learns decisions, not scores, names or who else there is."""

from __future__ import annotations

from typing import Any

DIGITS = 2  # of a similarity that `match` may see; finer steps help to paint a face towards somebody's template


def verification_decision(answer: dict[str, Any]) -> dict[str, Any]:
    """A 1:1 answer without probability and distance, which are the similarity in other words."""
    kept = {key: value for key, value in answer.items() if key not in ("probability", "distance")}
    return {**kept, "similarity": round(answer["similarity"], DIGITS)}


def identification_decision(answer: dict[str, Any]) -> dict[str, Any]:
    """A 1:N answer with the number of who was matched; no names, no other candidates, no size of the gallery."""
    return {**answer, "faces": [_face_decision(face) for face in answer["faces"]]}


def _face_decision(face: dict[str, Any]) -> dict[str, Any]:
    match = face["match"]
    decision = None if match is None else {"id": match["id"], "similarity": round(match["similarity"], DIGITS)}
    kept = {key: face[key] for key in ("decided", "threshold", "fmr", "face")}
    return {"match": decision, **kept}
