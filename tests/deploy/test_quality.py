"""Quality of a face: its reasons, and the angles of its head."""

import cv2
import numpy as np
import pytest

from visavis.deploy.quality import _MEAN_FACE, assess, head_pose, judged_crop, sharpness
from visavis.synthetic.scenes import scene
from visavis.vision.alignment import align, template_points
from visavis.vision.preprocessing import PreprocessSpec


def test_head_pose_recovers_the_angles_a_mean_face_was_turned_by():
    def turned(yaw, pitch, roll):
        y, p, r = np.radians([yaw, pitch, roll])
        about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        about_x = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
        about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
        return (about_z @ about_x @ about_y @ _MEAN_FACE.T).T[:, :2] * 40 + 100

    for angles in ((0, 0, 0), (50, 0, 0), (-35, 20, 0), (20, -30, 40), (60, 10, -170)):
        np.testing.assert_allclose(head_pose(turned(*angles)), angles, atol=1e-6)
    assert "extreme pose: turned about 70° aside" in assess(_noise(), turned(70, 0, 0)).reasons[0]
    assert "extreme pose: tilted about 50°" in assess(_noise(), turned(0, 50, 0)).reasons[0]
    assert assess(_noise(), turned(20, 10, 30)).reasons == ()


# Medians over 813 photographs of LFW, moved onto the ArcFace template.
MEDIANS = {
    "mtcnn": [[38.06, 52.33], [73.80, 52.12], [55.90, 73.15], [40.51, 91.36], [71.57, 91.07]],
    "yunet": [[36.90, 52.75], [74.63, 52.51], [56.14, 73.61], [39.98, 90.15], [72.28, 90.36]],
}


@pytest.mark.parametrize("detector", MEDIANS)
def test_a_median_face_looks_ahead(detector):
    yaw, pitch, roll = head_pose(MEDIANS[detector])
    assert abs(pitch) < 2  # 6 and 8 when the template itself stood for a mean face
    assert abs(yaw) < 1
    assert abs(roll) < 1


def _noise():
    crop = np.random.default_rng(0).integers(0, 255, (112, 112, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(crop, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def test_reasons_name_what_is_poor():
    points = template_points("arcface", (112, 112))
    assert "face too small: 11 pixels" in assess(_noise(), points * 0.3).reasons[0]
    assert "cut off: " in assess(_noise(), points - [60, 0], shape=(112, 112)).reasons[0]
    soft = np.random.default_rng(1).integers(0, 255, (5, 5, 3)).astype(np.uint8)
    blurred = assess(cv2.resize(soft, (112, 112), interpolation=cv2.INTER_CUBIC), points)
    assert any(reason.startswith("blurred") for reason in blurred.reasons)
    flat = np.full((112, 112, 3), 90, np.uint8)
    assert any(reason.startswith("little contrast") for reason in assess(flat, points).reasons)
    assert sharpness(flat) == 0
    good = assess(_noise(), points, score=1.0)
    assert good.reasons == ()
    assert 0 < blurred.score < good.score <= 1


@pytest.mark.parametrize("number", range(3))
def test_a_photograph_is_as_sharp_for_one_model_as_for_another(number):
    shown = scene(5, number, range(1), difficulty=0.4)
    specs = [
        PreprocessSpec(),
        PreprocessSpec(size=(112, 96), template="sphereface"),
        PreprocessSpec(size=(56, 56)),
        PreprocessSpec(size=(160, 160)),
        PreprocessSpec(antialias="none"),
    ]
    found, own = [], []
    for spec in specs:
        crop = align(shown.image, shown.landmarks[0], template=spec.template, size=spec.size, antialias=spec.antialias)
        own.append(sharpness(crop))
        found.append(assess(judged_crop(shown.image, shown.landmarks[0], crop, spec), shown.landmarks[0]))
    assert {quality.sharpness for quality in found} == {found[0].sharpness}
    assert {quality.reasons for quality in found} == {found[0].reasons}
    assert own[2] < 0.6 * own[0]  # the model's own crop of 56 pixels, enlarged, would be called blurred first
