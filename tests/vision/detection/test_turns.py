"""A picture on its side or head: seen as such, and its face in the very place of the upright one's."""

import numpy as np
import pytest
from paths import SHARED

from visavis.errors import DataError
from visavis.types import Faces
from visavis.vision import images
from visavis.vision.alignment import align
from visavis.vision.detection import turns
from visavis.vision.detection.detectors import choose, load_detector, no_faces
from visavis.vision.detection.turns import detect_turned, turned_back

RAW = SHARED / "lfw-raw"


LEVEL = [[-3, 0], [3, 0], [0, 2], [-2, 4], [2, 4]]


class Marked:
    """Finds one face, of a score by how a red dot lies to a blue one: sure when red is left of blue, level."""

    def __init__(self, sure=0.9999, doubtful=0.8):
        self.sure, self.doubtful, self.looks = sure, doubtful, []

    def detect(self, image):
        self.looks.append(image.shape)
        dots = [np.argwhere((image[..., c] > 200) & (image[..., 1] < 50)) for c in (0, 2)]
        if not all(len(d) for d in dots):
            return no_faces()
        red, blue = (d.mean(0)[::-1] for d in dots)
        upright = abs(red[1] - blue[1]) < 2 and red[0] < blue[0]
        middle = (red + blue) / 2
        points = np.array([red, blue, middle, red, blue]) if upright else np.add(middle, LEVEL)
        box = np.concatenate([points.min(0) - 5, points.max(0) + 5])
        score = self.sure if upright else self.doubtful
        return Faces(box[None].astype(np.float32), np.array([score], np.float32), points[None].astype(np.float32))


def dotted(height=80, width=120):
    image = np.full((height, width, 3), 90, np.uint8)
    image[28:31, 38:41] = (255, 0, 0)
    image[28:31, 78:81] = (0, 0, 255)
    return image


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("turn", ["auto", "always"])
def test_the_turn_is_said_and_places_are_of_the_picture_as_it_came(quarters, turn):
    upright = dotted()
    came = np.ascontiguousarray(np.rot90(upright, -quarters))  # turned clockwise so often
    faces, degrees = detect_turned(Marked(), came, turn=turn)
    assert degrees == (360 - 90 * quarters) % 360
    eyes = faces.landmarks[0, :2]
    for (x, y), color in zip(eyes, ((255, 0, 0), (0, 0, 255)), strict=True):
        assert tuple(came[round(float(y)), round(float(x))]) == color
    x1, y1, x2, y2 = faces.boxes[0]
    assert (x1, y1) < (x2, y2)
    assert ((eyes > [x1, y1]) & (eyes < [x2, y2])).all()


def test_auto_looks_once_at_a_sure_face_and_never_never():
    detector = Marked()
    detect_turned(detector, dotted())
    assert len(detector.looks) == 1
    detector = Marked()
    faces, degrees = detect_turned(detector, np.ascontiguousarray(np.rot90(dotted())), turn="never")
    assert (len(detector.looks), len(faces), degrees) == (1, 1, 0)
    detector = Marked(sure=0.9)  # below what is sure, and no turn is better: as it came
    faces, degrees = detect_turned(detector, dotted())
    assert (len(detector.looks), degrees) == (4, 0)
    with pytest.raises(DataError, match="unknown turn 'Auto'"):
        detect_turned(detector, dotted(), turn="Auto")


def test_a_little_better_is_not_turned():
    """Upright is what pictures mostly are."""
    came = np.ascontiguousarray(np.rot90(dotted(), 2))
    assert detect_turned(Marked(sure=0.995, doubtful=0.99), came)[1] == 0  # odds 2.0 times as good
    assert detect_turned(Marked(sure=0.997, doubtful=0.99), came)[1] == 180  # 3.4 times


def test_turned_looks_are_at_a_reduced_picture():
    detector = Marked(sure=0.1)
    detect_turned(detector, np.zeros((2000, 3000, 3), np.uint8))
    assert detector.looks[0] == (2000, 3000, 3)
    assert len(detector.looks) == 4
    assert all(h * w <= turns._LOOK * 1.01 for h, w, _ in detector.looks[1:])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_places_go_back_as_pixels_do(quarters):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (7, 11, 3), dtype=np.uint8)
    turned = np.rot90(image, quarters)
    rows, columns = np.mgrid[: turned.shape[0], : turned.shape[1]]
    points = np.stack([columns, rows], -1).reshape(-1, 1, 2).astype(np.float32).repeat(5, 1)
    faces = Faces(np.zeros((len(points), 4), np.float32), np.ones(len(points), np.float32), points)
    x, y = turned_back(faces, image.shape, quarters).landmarks[:, 0].astype(int).T
    assert np.array_equal(image[y, x], turned.reshape(-1, 3))


def crop(detector, image):
    faces, degrees = detect_turned(detector, image)
    best = choose(faces, image.shape)
    return align(image, faces.landmarks[best]).astype(int), degrees


@pytest.mark.skipif(not RAW.is_dir(), reason="needs ../shared/lfw-raw")
def test_real_photographs_turned_give_the_crops_of_the_upright_ones():
    detector = load_detector("mtcnn")
    same = 0
    for path in sorted((RAW / "images").glob("*/*"))[::82]:
        image = images.read(path)
        upright, degrees = crop(detector, image)
        assert degrees == 0
        for quarters in (1, 2, 3):
            got, degrees = crop(detector, np.ascontiguousarray(np.rot90(image, -quarters)))
            same += degrees == 360 - 90 * quarters and np.abs(got - upright).mean() < 3
    assert same >= 29  # of 30
