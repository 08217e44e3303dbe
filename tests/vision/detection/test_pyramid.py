"""Scales and tiles of a search."""

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.vision.detection.detectors import load_detector


@pytest.fixture(scope="module")
def mtcnn():
    pytest.importorskip("onnxruntime")
    return load_detector("mtcnn")


def test_tiles_answer_as_the_whole_does(mtcnn, monkeypatch):
    """Every size of a picture cut into tiles gives the very faces that the whole gives."""
    from visavis.synthetic import face
    from visavis.vision.detection import pyramid

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (700, 1100, 3), dtype=np.uint8)
    for k, (top, left) in enumerate(((10, 20), (321, 318), (500, 900), (300, 640))):
        image[top : top + 112, left : left + 112] = face(k, 1, 1, size=112)[0]
    tiled = mtcnn.detect(image)
    monkeypatch.setattr(pyramid, "_TILE", 10_000)
    whole = mtcnn.detect(image)
    assert len(whole) >= 3
    assert np.allclose(tiled.boxes, whole.boxes, atol=0.01)
    assert np.allclose(tiled.landmarks, whole.landmarks, atol=0.01)


def test_the_smallest_face_is_stated():
    from visavis.vision.detection.pyramid import levels, smallest_face

    assert smallest_face((2000, 2700), None) == 20
    assert smallest_face((3000, 4000), None) == pytest.approx(29.4, abs=0.1)
    assert smallest_face((6000, 8000), None) == pytest.approx(58.8, abs=0.1)
    assert smallest_face((1000, 40_000), None) == pytest.approx(53.7, abs=0.1)
    assert smallest_face((6000, 8000), 24) == 24
    for shape in ((6000, 8000), (1000, 40_000), (600, 65_500)):
        searched = sum(w * h for w, h in levels(shape, smallest_face(shape, None), 0.709))
        assert searched < 4_200_000  # 2 megapixels and what the smaller sizes add
    with pytest.raises(DataError, match="at least 12 pixels, got min_face 11"):
        load_detector("mtcnn", min_face=11)
    load_detector("mtcnn", min_face=12)
