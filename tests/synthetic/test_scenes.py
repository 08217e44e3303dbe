"""Scenes of several people, with the places of their faces."""

import numpy as np
import pytest


def test_a_detector_finds_the_faces_of_scenes_where_they_are() -> None:
    pytest.importorskip("onnxruntime")
    from visavis.synthetic.scenes import scene
    from visavis.vision.detection.detectors import load_detector

    detector = load_detector("mtcnn")
    errors, faces, extra = [], 0, 0
    for number in range(10):
        shown = scene(7, number, range(60))
        found = detector.detect(shown.image)
        faces, extra = faces + len(shown.boxes), extra + len(found)
        for box, points in zip(shown.boxes, shown.landmarks, strict=True):
            assert np.all(box[:2] < points.min(0)) or np.all(box[2:] > points.max(0))
            far = np.linalg.norm(found.landmarks.mean(1) - points.mean(0), axis=1)
            if len(far) and far.min() < 0.3 * (box[3] - box[1]):
                extra -= 1
                wide = np.linalg.norm(points[:2].mean(0) - points[3:].mean(0))
                errors.append(np.linalg.norm(found.landmarks[far.argmin()] - points, axis=1) / wide)
    assert len(errors) >= 0.85 * faces
    assert extra <= 0.1 * faces
    assert np.median(errors) < 0.12  # of the distance from eyes to mouth
