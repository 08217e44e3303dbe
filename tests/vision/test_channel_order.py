"""Faces of arrays in OpenCV's order are known by being bluer than red."""

import numpy as np
import pytest

from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError
from visavis.vision.channel_order import looks_bgr


def made_with(recognizer, arrays):
    return Recognizer(
        recognizer.embedder, spec=recognizer.spec, card=recognizer.card, detector=recognizer.detector, arrays=arrays
    )


def test_the_middle_of_the_face_decides_at_its_boundary():
    crop = np.full((112, 112, 3), 100, np.uint8)
    assert not looks_bgr(crop)  # gray
    crop[..., 2] = 105
    assert not looks_bgr(crop)
    crop[..., 2] = 106
    assert looks_bgr(crop)
    crop[30:95, 20:92, 2] = 90  # a blue ground around skin
    assert not looks_bgr(crop)


def test_opencv_arrays_are_turned_when_told_or_asked(recognizer, draw, caplog):
    skin = draw.paint((210, 150, 120))
    truth = recognizer.get(skin)[0].embedding
    turned = np.ascontiguousarray(skin[..., ::-1])
    for arrays, image in (("BGR", turned), ("auto", turned), ("auto", skin), ("RGB", skin)):
        np.testing.assert_array_equal(made_with(recognizer, arrays).get(image)[0].embedding, truth)
    assert not caplog.records
    hinting = made_with(recognizer, "RGB")
    for _ in range(2):
        assert not np.allclose(hinting.get(turned)[0].embedding, truth)
    assert ["image[..., ::-1]" in r.getMessage() for r in caplog.records] == [True]  # once
    with pytest.raises(DataError, match="unknown channel order"):
        made_with(recognizer, "rgba")


def test_files_are_never_turned(recognizer, draw, tmp_path, caplog):
    from visavis.vision.images import write

    write(tmp_path / "blue.png", draw.paint((120, 150, 210)))
    truth = recognizer.get(tmp_path / "blue.png")[0].embedding
    for arrays in ("auto", "BGR"):
        face = made_with(recognizer, arrays).get(tmp_path / "blue.png")[0]
        np.testing.assert_array_equal(face.embedding, truth)
    assert not caplog.records


def test_no_face_found_says_what_helps_the_likeliest_first(recognizer, draw):
    with pytest.raises(DataError, match=r"no face found; an aligned crop already\?.*small face.*lying.*BGR"):
        recognizer.best(draw.paint())


def test_real_faces_in_opencvs_order(shared):
    from visavis.vision.images import read

    crops = [read(path) for path in sorted((shared / "lfw-dev" / "images").glob("A*/*.jpg"))[::10]]
    assert len(crops) > 40
    assert not any(map(looks_bgr, crops))
    colored = [crop for crop in crops if np.abs(crop[..., 0].astype(int) - crop[..., 2]).max() > 5]
    assert all(looks_bgr(crop[..., ::-1]) for crop in colored)
