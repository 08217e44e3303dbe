"""Faces of one picture are different people: nobody is two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from visavis.deploy.gallery.records import Candidate, Identification


def one_to_one(answers: Sequence[Identification]) -> list[Identification]:
    """The answers for the faces of one picture, each subject matched once: by the face most similar to them.

    Faces and candidates at or above the threshold are paired in order of similarity. A face whose subject is another
    face of the picture is matched with its next candidate that reaches the threshold and is nobody else, if there is
    one; `elsewhere` names the subject that was taken.
    """
    pairs = [
        (-candidate.similarity, i, k)
        for i, answer in enumerate(answers)
        if answer.threshold is not None
        for k, candidate in enumerate(answer.candidates)
        if candidate.similarity >= answer.threshold
    ]
    matches: dict[int, Candidate] = {}
    taken: set[int] = set()
    for _, i, k in sorted(pairs):
        candidate = answers[i].candidates[k]
        if i not in matches and candidate.id not in taken:
            matches[i] = candidate
            taken.add(candidate.id)
    return [_matched(answer, matches.get(i)) for i, answer in enumerate(answers)]


def _matched(answer: Identification, match: Candidate | None) -> Identification:
    if answer.match is None or (match is not None and match.id == answer.match.id):
        return answer
    return replace(answer, match=match, elsewhere=answer.match)
