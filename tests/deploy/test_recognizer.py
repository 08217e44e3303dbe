"""From picture to answer: inputs, faces, quality reasons, thresholds."""

import io
import json
import math
import multiprocessing
import pickle

import numpy as np
import pytest
from PIL import Image

from visavis.deploy.enrollment import enroll_images
from visavis.deploy.json_views import verification_json
from visavis.deploy.operating_point import operating_point
from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError, ModelFormatError
from visavis.types import Embedder, Faces
from visavis.vision.alignment import align, template_points
from visavis.vision.images import decode


def test_every_kind_of_picture_gives_the_same_faces(recognizer, draw, tmp_path):
    array = draw.paint(draw.RED, draw.BLUE, size=(220, 420))
    path = tmp_path / "two.png"
    Image.fromarray(array).save(path)
    rows = [
        np.stack([face.embedding for face in recognizer.get(jpeg)])
        for jpeg in (array, path, str(path), path.read_bytes(), Image.open(path))
    ]
    assert rows[0].shape == (2, 4)
    for other in rows[1:]:
        np.testing.assert_array_equal(other, rows[0])


def test_several_pictures_share_a_forward_pass(recognizer, draw):
    found = recognizer.get_many([draw.paint(draw.RED), draw.paint(), draw.paint(draw.RED, draw.BLUE, size=(220, 420))])
    assert [len(faces) for faces in found] == [1, 0, 2]
    assert recognizer.embedder.sizes == [3]


def test_verify_decides_at_the_calibrated_threshold(recognizer, draw):
    same = recognizer.verify(draw.paint(draw.RED), draw.paint(draw.RED, seed=1))
    other = recognizer.verify(draw.paint(draw.RED), draw.paint(draw.BLUE))
    assert (same.match, other.match) == (True, False)
    assert (same.threshold, same.fmr) == (0.9, 1e-3)
    expected = 1 / (1 + math.exp(-(40 * same.similarity - 36)))
    assert same.probability == pytest.approx(expected)
    assert same.distance == pytest.approx(1 - same.similarity)
    assert json.loads(json.dumps(verification_json(same)))["reference"]["faces_in_picture"] == 1
    looser = recognizer.verify(draw.paint(draw.RED), draw.paint(draw.BLUE), fmr=1e-2)
    assert (looser.threshold, looser.probability) == (0.8, None)


def test_without_calibration_nothing_is_guessed(recognizer, card, draw):
    plain = Recognizer(
        recognizer.embedder, spec=recognizer.spec, card=card.with_changes(thresholds={}), detector=recognizer.detector
    )
    result = plain.verify(draw.paint(draw.RED), draw.paint(draw.RED))
    assert result.match is None
    assert result.threshold is None
    assert "visavis calibrate MODEL PHOTOS" in result.notes[0]
    assert plain.verify(draw.paint(draw.RED), draw.paint(draw.RED), threshold=0.5).match is True


def test_a_rate_that_was_not_calibrated_is_refused_with_those_that_were(recognizer, card):
    with pytest.raises(DataError, match=r"calibrated at the false match rates 0\.001, 0\.01, not at 1e-05"):
        recognizer.point(fmr=1e-5)
    assert recognizer.point().fmr == 1e-3
    loose = operating_point(card.with_changes(thresholds={"1e-1": {"threshold": 0.1}, "1e-2": {"threshold": 0.2}}))
    assert (loose.fmr, loose.threshold) == (1e-2, 0.2)
    with pytest.raises(DataError, match="between 0 and 1"):
        recognizer.point(fmr=0)
    with pytest.raises(DataError, match=r"\[-1, 1\]"):
        recognizer.point(threshold=1.5)
    foreign = card.with_changes(thresholds={"1e-3": {"threshold": 0.5, "digest": "d" * 64}})
    with pytest.raises(ModelFormatError, match="other weights"):
        operating_point(foreign)
    with pytest.raises(ModelFormatError, match="holds no threshold"):
        operating_point(card.with_changes(thresholds={"1e-3": {}}))


def test_a_picture_without_a_face_is_an_error_that_says_what_to_do(recognizer, draw):
    with pytest.raises(DataError, match=r"probe: no face found.*--aligned"):
        recognizer.verify(draw.paint(draw.RED), draw.paint())
    assert recognizer.get(draw.paint()) == []


def test_an_aligned_crop_is_used_without_detection(card, draw):
    class Never:
        def detect(self, image):
            raise AssertionError("an aligned crop is not searched")

    crop = np.full((112, 112, 3), draw.RED, np.uint8)
    from_fixture = Recognizer(_Color(), spec=card.preprocess, card=card, detector=Never())
    assert from_fixture.embed([crop, crop], aligned=True).shape == (2, 4)
    assert from_fixture.verify(crop, crop, aligned=True).match is True
    with pytest.raises(DataError, match="112×112 crops"):
        from_fixture.embed([np.zeros((50, 112, 3), np.uint8)], aligned=True)


class _Color:
    dim = 4

    def embed(self, crops):
        rows = np.concatenate([crops.mean((1, 2)), np.ones((len(crops), 1))], 1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_names_deepface_and_insightface_users_know(recognizer, draw):
    assert isinstance(recognizer.embedder, Embedder)
    [face] = recognizer.get(draw.paint(draw.GREEN))
    assert face.bbox.shape == (4,)
    assert face.kps.shape == (5, 2)
    assert face.det_score == pytest.approx(0.9)
    np.testing.assert_array_equal(face.normed_embedding, face.embedding)
    [entry] = recognizer.represent(draw.paint(draw.GREEN))
    assert set(entry) == {"embedding", "facial_area", "face_confidence"}
    assert entry["facial_area"]["w"] == pytest.approx(160, abs=6)


def test_find_looks_up_every_face(recognizer, gallery, draw):
    for name, color in (("Rosa", draw.RED), ("Blau", draw.BLUE)):
        enroll_images(recognizer, gallery, name, [draw.paint(color)])
    crowd = draw.paint(draw.RED, draw.GREEN, draw.BLUE, size=(220, 600))
    found = recognizer.find(crowd, gallery)
    assert sorted(a.match.name if a.match else "-" for _, a in found) == ["-", "Blau", "Rosa"]
    assert {a.searched for _, a in found} == {2}
    assert recognizer.find(draw.paint(), gallery) == []
    with pytest.raises(DataError, match="open gallery, got str"):
        recognizer.find(draw.paint(), "people")


def test_a_thousand_faces_are_capped_and_counted(recognizer, draw):
    tile = np.zeros((16, 16, 3), np.uint8)
    tile[2:14, 2:14] = draw.RED
    many = np.tile(tile, (40, 40, 1))
    faces = recognizer.get(many, max_faces=1000)
    assert len(faces) == 1000
    assert faces[0].faces_in_image == 1600
    assert any("several faces: 1600" in reason for reason in faces[0].reasons)
    assert any("too small" in reason for reason in faces[0].reasons)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((10, 10, 2), np.uint8), "expected an array"),
        (np.zeros((10, 10, 3), np.int32), "expected an array"),
        (np.zeros((0, 0, 3), np.uint8), "expected an array"),
        (np.full((10, 10, 3), np.nan), "finite"),
        (b"", "empty"),
        (b"not a picture at all", "expected a JPEG"),
        ("/no/such/file.jpg", "cannot read"),
    ],
)
def test_what_is_no_picture_is_refused(recognizer, array, said):
    with pytest.raises(DataError, match=said):
        recognizer.get(array)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_gif_cmyk_and_rotated_pictures_are_read_as_they_look(recognizer, draw):
    jpeg = Image.fromarray(draw.paint(draw.RED, size=(200, 260)))
    plain = recognizer.embed([encoded(jpeg, "PNG")])[0]
    gif = encoded(jpeg, "GIF", save_all=True, append_images=[Image.new("RGB", jpeg.size)])
    cmyk = encoded(jpeg.convert("CMYK"), "JPEG", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    turned = encoded(jpeg.rotate(90, expand=True), "JPEG", exif=exif, quality=95)
    for other in (gif, cmyk, turned):
        assert float(recognizer.embed([other])[0] @ plain) > 0.99
    assert decode(turned).shape[:2] == (200, 260)


def test_a_face_in_fifty_megapixels_is_cut_out_whole(card, draw):
    class Knows:
        def detect(self, image):
            points = np.array([[1860, 2340], [3140, 2340], [2500, 3060], [1980, 3780], [3020, 3780]], np.float32)
            return Faces(np.array([[500, 500, 4500, 4500]], np.float32), np.ones(1, np.float32), points[None])

    big = np.zeros((5000, 10000, 3), np.uint8)
    big[500:4500, 500:4500] = draw.RED
    [face] = Recognizer(_Color(), spec=card.preprocess, card=card, detector=Knows()).get(big)
    assert face.crop.shape == (112, 112, 3)
    assert np.abs(face.crop[30:-10, 20:-20].astype(int) - draw.RED).max() <= 1


@pytest.mark.parametrize("way", ["area", "box"])
def test_large_faces_are_averaged_down_before_the_warp(way):
    """Of stripes one pixel wide a plain bilinear warp at an eighth keeps some at random; their average is gray."""
    stripes = np.zeros((896, 896, 3), np.uint8)
    stripes[:, ::2] = 255
    points = (template_points("arcface", (112, 112)) + 0.5) * 8 - 0.5
    fine = align(stripes, points, size=(112, 112), antialias=way)[8:-8, 8:-8]
    assert np.abs(fine.astype(int) - 128).max() <= 3
    y, x = np.mgrid[:896, :896] / 60
    waves = np.stack([127 + 120 * np.sin(x), 127 + 120 * np.sin(y), 127 + 120 * np.sin(x + y)], 2).astype(np.uint8)
    a = align(waves, points).astype(int)
    b = align(waves, points, size=(112, 112), antialias=way).astype(int)
    assert np.abs(a - b)[4:-4, 4:-4].max() <= 3  # nothing moved


def test_places_in_a_large_jpeg_are_those_of_the_whole(recognizer, draw, monkeypatch):
    """Decoded at half its sides, unless a smallest face was asked for in pixels of the whole."""
    from visavis.deploy import recognizer as module
    from visavis.vision.images import encode

    def seen(asked):
        detector, shapes = type(recognizer.detector)(), []
        detector.asked = asked
        found = detector.detect
        detector.detect = lambda image: shapes.append(image.shape[:2]) or found(image)
        made = Recognizer(recognizer.embedder, spec=recognizer.spec, detector=detector, turn="never")
        return made.get(jpeg)[0], shapes

    jpeg = encode(draw.paint(draw.RED), ".jpg")
    monkeypatch.setattr(module, "LARGE", 300 * 300 - 1)
    reduced, shapes = seen(False)
    whole, others = seen(True)
    assert (shapes, others) == ([(150, 150)], [(300, 300)])
    assert np.abs(reduced.box - whole.box).max() < 4
    assert np.abs(reduced.landmarks - whole.landmarks).max() < 4
    assert float(reduced.embedding @ whole.embedding) > 0.999


def test_a_turned_picture_is_said_to_be(recognizer, draw, gallery):
    """In the face, in JSON and in what enrollment doubts; never as a reason that `strict` refuses for."""

    class Sideways(type(recognizer.detector)):
        def detect(self, image):
            found = super().detect(image)
            scores = np.full(len(found), 0.5 if image.shape == (300, 200, 3) else 0.9999, np.float32)
            return Faces(found.boxes, scores, found.landmarks)

    made = Recognizer(recognizer.embedder, spec=recognizer.spec, card=recognizer.card, detector=Sideways())
    came = np.ascontiguousarray(np.rot90(draw.paint(draw.RED, size=(200, 300))))
    face = made.best(came)
    assert face.turned in (90, 270)
    assert not any("turn" in reason for reason in face.reasons)
    assert verification_json(made.verify(came, came, threshold=0.5))["reference"]["turned"] == face.turned
    done = enroll_images(made, gallery, "Rosa", [came])
    assert done.enrollment is not None
    assert f"turned by {face.turned}° to stand upright" in done.doubts[0][1]


def _embed(given):
    recognizer, image = given
    return recognizer.get(image, aligned=True)[0].embedding


def test_a_loaded_recognizer_is_given_to_processes(color_model, colored_people, monkeypatch, tmp_path):
    monkeypatch.chdir(color_model.parent)
    recognizer = Recognizer.load(color_model.name, threads=1, turn="never")
    data = pickle.dumps(recognizer)
    assert len(data) < 1000
    monkeypatch.chdir(tmp_path)  # the path was relative; the process may be elsewhere
    again = pickle.loads(data)
    assert (again.turn, again.identity) == ("never", recognizer.identity)
    images = sorted(colored_people.glob("*/*.png"))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_embed, [(recognizer, image) for image in images])
    np.testing.assert_array_equal(found, [_embed((recognizer, image)) for image in images])


def test_one_made_of_parts_says_what_to_do(recognizer):
    with pytest.raises(TypeError, match=r"call Recognizer\.load\(PATH\) in each process"):
        pickle.dumps(recognizer)
