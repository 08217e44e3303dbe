"""Nobody is two faces of one picture."""

import numpy as np

from visavis.deploy.gallery.assignment import one_to_one
from visavis.deploy.gallery.records import Candidate, decide


def answers(*rows, threshold=0.5):
    """Answers from rows of (number, similarity), best first."""
    return decide([tuple(Candidate(n, f"p{n}", s) for n, s in row) for row in rows], 9, threshold, None)


def matched(found):
    return [None if answer.match is None else answer.match.id for answer in found]


def test_the_most_similar_face_is_the_subject_the_second_is_named_as_such():
    found = one_to_one(answers([(1, 0.7)], [(1, 0.9)], [(2, 0.6)]))
    assert matched(found) == [None, 1, 2]
    assert [answer.elsewhere.id if answer.elsewhere else None for answer in found] == [1, None, None]
    assert found[0].decided


def test_the_next_candidate_is_taken_from_the_threshold_on():
    assert matched(one_to_one(answers([(1, 0.7), (2, 0.5)], [(1, 0.9)]))) == [2, 1]
    assert matched(one_to_one(answers([(1, 0.7), (2, 0.4999)], [(1, 0.9)]))) == [None, 1]
    assert matched(one_to_one(answers([(1, 0.7), (2, 0.6)], [(1, 0.9), (2, 0.1)], [(2, 0.8)]))) == [None, 1, 2]


def test_what_is_not_decided_or_unknown_stays():
    undecided = answers([(1, 0.7)], [(1, 0.9)], threshold=None)
    assert one_to_one(undecided) == undecided
    unknown = answers([(1, 0.4)], [(1, 0.3)], [])
    assert one_to_one(unknown) == unknown


def test_two_faces_of_a_picture_are_not_both_ada(recognizer, gallery, draw):
    """Also with one candidate shown, and through the whole way."""
    gallery.enroll("Ada", recognizer.embed([draw.paint(draw.RED)]))
    image = draw.paint(draw.RED, draw.PINK, size=(300, 500))
    for top in (1, 3):
        found = recognizer.find(image, gallery, threshold=0.9, top=top)
        names = [answer.match.name if answer.match else None for _, answer in found]
        assert sorted(names, key=str) == ["Ada", None]
        other = next(answer for _, answer in found if answer.match is None)
        assert other.elsewhere.name == "Ada"
        assert all(len(answer.candidates) == 1 for _, answer in found)
    faces = np.stack([face.embedding for face, _ in found])
    assert [answer.match.name for answer in gallery.identify(faces, threshold=0.9)] == ["Ada", "Ada"]  # of two pictures
