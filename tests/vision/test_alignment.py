"""The similarity transform against plain least squares, the templates, and the warp."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.errors import DataError
from visavis.vision.alignment import (
    TEMPLATES,
    align,
    estimate_similarity,
    fit_similarity,
    get_template,
    template_points,
)


def least_squares(source, target):
    """min ‖A p − b‖² over p = (a, b, tx, ty) of x' = a x − b y + tx, y' = b x + a y + ty."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows, float), np.array(values, float), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 8))
def test_similarity_is_the_least_squares_one(seed, noise):
    rng = np.random.default_rng(seed)
    angle, scale = rng.uniform(-np.pi, np.pi), rng.uniform(0.2, 5)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = template_points("arcface", (112, 112))
    source = target @ turn.T + rng.uniform(-200, 200, 2) + noise * rng.normal(size=(5, 2))
    assert np.allclose(estimate_similarity(source, target), least_squares(source, target), atol=1e-8)


def test_exact_points_are_hit_exactly():
    source = template_points("arcface", (112, 112))
    target = source * 2 + [3, -4]
    matrix = estimate_similarity(source, target)
    assert np.allclose(matrix, [[2, 0, 3], [0, 2, -4]])


def test_a_mirrored_face_is_never_reflected():
    target = template_points("arcface", (112, 112))
    matrix = estimate_similarity(target * [-1, 1], target)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((5, 2)), "one point for all"),
        (np.full((5, 2), np.nan), "finite"),
        (np.zeros((4, 2)), "two equal lists"),
        (np.zeros((5, 3)), "two equal lists"),
        (np.zeros(10), "two equal lists"),
    ],
)
def test_impossible_landmarks(source, message):
    with pytest.raises(DataError, match=message):
        estimate_similarity(source, template_points("arcface", (112, 112)))


def test_the_templates_are_the_published_ones():
    arcface = [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    assert np.allclose(get_template("arcface").points, arcface)
    assert get_template("arcface").size == (112, 112)
    sphereface = [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
    assert np.allclose(get_template("sphereface").points, sphereface)  # reference-systems row S2
    assert get_template("sphereface").size == (112, 96)
    with pytest.raises(DataError, match="unknown template 'arcfce'; did you mean 'arcface'"):
        get_template("arcfce")


def test_padding_and_size_move_points_with_their_pixels():
    plain = template_points("sphereface", (112, 96))
    assert np.allclose(template_points("sphereface", (116, 100), padding=2), plain + 2)  # row S2: +2 px offset
    doubled = template_points("arcface", (224, 224))
    assert np.allclose((doubled + 0.5) / 2, template_points("arcface", (112, 112)) + 0.5)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("scale", [1, 2])
def test_aligned_landmarks_land_on_the_template(name, scale):
    """White dots at the landmarks of a turned, enlarged face come out at the template's points."""
    height, width = (side * scale for side in TEMPLATES[name].size)
    points = template_points(name, (height, width))
    turn = 2.5 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    landmarks = points @ turn.T + [300, 200]
    y, x = np.mgrid[0:900, 0:900]
    for landmark, point in zip(landmarks, points, strict=True):
        dot = 255 * np.exp(-((x - landmark[0]) ** 2 + (y - landmark[1]) ** 2) / (2 * 6.0**2))
        crop = align(np.dstack([dot.astype(np.uint8)] * 3), landmarks, template=name, size=(height, width))
        assert crop.shape == (height, width, 3)
        weight = crop[..., 0].astype(float)
        v, u = np.mgrid[0:height, 0:width]
        center = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
        assert np.abs(center - point).max() < 0.15


def test_outside_the_picture_is_black():
    crop = align(np.full((20, 20, 3), 255, np.uint8), template_points("arcface", (112, 112)))
    assert crop[:19, :19].min() == 255
    assert crop[21:, 21:].max() == 0
    assert align(
        np.zeros((20, 20, 3), np.uint8), template_points("sphereface", (112, 96)), template="sphereface", padding=2
    ).shape == (116, 100, 3)


def test_the_fit_in_the_image_is_matlabs_cp2tform():
    """cp2tform('nonreflective similarity') written plainly: least squares from crop to image, then the inverse."""
    rng = np.random.default_rng(0)
    target = template_points("sphereface", (112, 96))
    moved = 0
    for _ in range(20):
        turn, scale = rng.uniform(-0.6, 0.6), rng.uniform(0.5, 3)
        rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        image = target @ rotation.T + rng.uniform(0, 200, 2) + rng.normal(0, 4, (5, 2))
        x, y = target.T
        design = np.block([[x[:, None], y[:, None], np.ones((5, 1)), np.zeros((5, 1))],
                           [y[:, None], -x[:, None], np.zeros((5, 1)), np.ones((5, 1))]])  # fmt: skip
        a, b, tx, ty = np.linalg.lstsq(design, np.concatenate([image[:, 0], image[:, 1]]), rcond=None)[0]
        back = np.array([[a, b, tx], [-b, a, ty], [0, 0, 1]])
        expected = np.linalg.inv(back)[:2]
        np.testing.assert_allclose(fit_similarity(image, target, "image"), expected, atol=1e-9)
        crop = fit_similarity(image, target)
        np.testing.assert_array_equal(crop, estimate_similarity(image, target))
        assert np.hypot(*crop[:, 0]) < np.hypot(*expected[:, 0])  # noise shrinks what is fitted in the crop
        moved = max(moved, np.abs(image @ (crop - expected)[:, :2].T + (crop - expected)[:, 2]).max())
    assert moved > 0.1
    exact = target * 2 + 5
    np.testing.assert_allclose(fit_similarity(exact, target, "image"), fit_similarity(exact, target), atol=1e-9)
