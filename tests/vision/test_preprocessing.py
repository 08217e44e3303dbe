"""PreprocessSpec: what it accepts, and crops brought to a network's size or refused."""

import numpy as np
import pytest

from visavis.errors import DataError, ModelFormatError
from visavis.vision.alignment import TEMPLATES, align, template_points
from visavis.vision.preprocessing import PreprocessSpec, cut_frame, fit_crop, fit_crops, place_frame


def test_round_trip_through_a_card():
    spec = PreprocessSpec((112, 96), "sphereface", "BGR", (1.0, 2.0, 3.0), (128.0, 128.0, 128.0), "concat")
    assert PreprocessSpec.from_dict(spec.to_dict()) == spec
    loaded = PreprocessSpec.from_dict({**spec.to_dict(), "size": [112, 96], "mean": [1, 2, 3]})
    assert loaded == spec


@pytest.mark.parametrize(
    "change",
    [
        {"size": [112]},
        {"size": [112, 4]},
        {"size": [112, 2000]},
        {"size": 5},
        {"size": [112.5, 112]},
        {"size": None},
        {"template": "nose"},
        {"template": [[1, 2]] * 4},
        {"template": [[1, 2]] * 5},
        {"template": [[1, float("nan")]] * 5},
        {"template": None},
        {"antialias": "no"},
        {"normalization": "image"},
        {"channels": "GRB"},
        {"channels": []},
        {"flip": True},
        {"mean": [1, 2]},
        {"mean": "abc"},
        {"mean": [float("nan")] * 3},
        {"std": [1, 0, 1]},
        {"std": [1, -1, 1]},
        {"std": [None] * 3},
    ],
)
def test_impossible_values(change):
    with pytest.raises(ModelFormatError, match="preprocess"):
        PreprocessSpec.from_dict({**PreprocessSpec().to_dict(), **change})


@pytest.mark.parametrize("values", [{}, {"size": [112, 112]}, {**PreprocessSpec().to_dict(), "extra": 1}, [], None])
def test_missing_and_unknown_keys(values):
    with pytest.raises(ModelFormatError, match="wants the keys"):
        PreprocessSpec.from_dict(values)


def test_the_right_size_is_returned_untouched():
    crop = np.zeros((112, 96, 3), np.uint8)
    assert fit_crop(crop, PreprocessSpec((112, 96), "sphereface")) is crop


def test_a_square_crop_gives_its_center_columns():
    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert np.array_equal(fit_crop(crop, PreprocessSpec((112, 96), "sphereface")), crop[:, 8:104])


def test_center_columns_are_the_sphereface_crop():
    """Cutting an ArcFace crop and aligning to SphereFace's template see the same pixels."""
    face = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    landmarks = template_points("arcface", (112, 112)) * 1.2 + 20
    cut = fit_crop(align(face, landmarks), PreprocessSpec((112, 96), "sphereface"))
    direct = align(face, landmarks, template="sphereface")
    assert np.abs(cut.astype(int) - direct).max() <= 2


@pytest.mark.parametrize("size", [(56, 56), (64, 64), (56, 48), (112, 96)])
def test_landmarks_stay_on_the_template_after_fitting(size):
    """A dot at the template's nose of a 224 crop is at the template's nose of the fitted one."""
    template = "arcface" if size[0] == size[1] else "sphereface"
    nose = template_points("arcface", (224, 224))[2]
    y, x = np.mgrid[0:224, 0:224]
    dot = 255 * np.exp(-((x - nose[0]) ** 2 + (y - nose[1]) ** 2) / (2 * 8.0**2))
    crop = fit_crop(np.dstack([dot.astype(np.uint8)] * 3), PreprocessSpec(size, template))
    assert crop.shape[:2] == size
    weight = crop[..., 0].astype(float)
    v, u = np.mgrid[0 : size[0], 0 : size[1]]
    center = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
    assert np.abs(center - template_points(template, size)[2]).max() < 0.1


@pytest.mark.parametrize("shape", [(250, 200), (112, 100), (96, 112), (1, 2)])
def test_stretching_is_refused(shape):
    with pytest.raises(DataError, match="visavis prepare"):
        fit_crop(np.zeros((*shape, 3), np.uint8), PreprocessSpec())


def test_batches():
    spec = PreprocessSpec((56, 56))
    crops = np.random.default_rng(2).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    fitted = fit_crops(crops, spec)
    assert fitted.shape == (3, 56, 56, 3)
    assert np.array_equal(fitted[1], fit_crop(crops[1], spec))
    assert len(fit_crops(crops[:0], spec)) == 0
    with pytest.raises(DataError, match="uint8"):
        fit_crops(crops.astype(np.float32), spec)
    with pytest.raises(DataError, match="uint8"):
        fit_crops(crops[0], spec)


def test_generated_faces_move_to_where_the_template_keeps_the_face():
    """The same columns are cut from a centered crop and from one moved for `sphereface-left`, in any size."""
    crops = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    centered, left = (PreprocessSpec(size=(112, 96), template=t) for t in ("sphereface", "sphereface-left"))
    np.testing.assert_array_equal(place_frame(crops, centered), crops)
    np.testing.assert_array_equal(cut_frame(place_frame(crops, left), left), cut_frame(crops, centered))
    small = crops[:, ::2, ::2]
    np.testing.assert_array_equal(cut_frame(place_frame(small, left), left), cut_frame(small, centered))


def test_five_points_that_are_a_templates_align_as_its_name_does():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    landmarks = template_points("arcface", (200, 200)) + 40
    for name, size, padding in (
        ("arcface", (112, 112), 0),
        ("sphereface", (112, 96), 0),
        ("sphereface", (116, 100), 2),
    ):
        points = TEMPLATES[name].points.tolist()
        named = align(image, landmarks, template=name, size=size, padding=padding)
        assert np.array_equal(named, align(image, landmarks, template=points, size=size, padding=padding))


def test_arcface_crops_are_brought_onto_five_points():
    """An ArcFace crop brought onto another template is that one's crop, down to where ArcFace's ends at the chin."""
    y, x = np.mgrid[:400, :400] / 25
    face = np.stack([127 + 100 * np.sin(x), 127 + 100 * np.sin(y), 127 + 100 * np.sin(x + y)], 2).astype(np.uint8)
    landmarks = template_points("arcface", (150, 150)) + 90
    dlib = ((47.55, 46.6), (100.48, 46.6), (74.01, 76.56), (50.41, 103.02), (97.61, 103.02))
    spec = PreprocessSpec((150, 150), dlib)
    crop = align(face, landmarks, size=(192, 192))
    direct = align(face, landmarks, template=dlib, size=(150, 150)).astype(int)
    for got in (fit_crop(crop, spec), place_frame(crop[None], spec)[0]):
        assert np.abs(got.astype(int) - direct)[8:112, 12:-12].max() <= 12
    own = align(face, landmarks, template=((np.array(dlib) + 0.5) * 1.28 - 0.5).tolist(), size=(192, 192)).astype(int)
    assert np.abs(cut_frame(crop[None], spec)[0].astype(int) - own)[10:144, 16:-16].max() <= 12


def test_an_oblong_crop_of_five_points_is_only_scaled():
    points = ((30.0, 51.0), (66.0, 51.0), (48.0, 71.0), (33.0, 92.0), (63.0, 92.0))
    spec = PreprocessSpec((112, 96), points)
    assert fit_crop(np.zeros((224, 192, 3), np.uint8), spec).shape == (112, 96, 3)
    with pytest.raises(DataError, match="five points"):
        fit_crop(np.zeros((100, 90, 3), np.uint8), spec)


def test_whole_pixels_are_averaged_and_nothing_moves():
    """At three times the crop every crop pixel is the mean of 3 × 3 pixels."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (345, 351, 3), dtype=np.uint8)
    face = image[6:342, 3:339]
    points = (template_points("arcface", (112, 112)) + 0.5) * 3 - 0.5 + [3, 6]
    got = align(image, points, antialias="box")
    mean = face.reshape(112, 3, 112, 3, 3).mean((1, 3))
    assert np.abs(got - mean).max() <= 1
    ramp = np.repeat((np.arange(351) // 2).astype(np.uint8)[None], 345, 0)[..., None].repeat(3, 2)
    averaged, sampled = (align(ramp, points, antialias=way).astype(int) for way in ("box", "none"))
    assert np.abs(averaged - sampled)[:, 1:-1].max() <= 1


def test_a_face_at_the_edge_is_averaged_to_the_edge():
    image = np.full((333, 333, 3), 200, np.uint8)
    points = (template_points("arcface", (112, 112)) + 0.5) * 3 - 0.5
    inside = align(image, points, antialias="box")[:110, :110]
    assert (inside == 200).all()


def test_a_template_of_model_folders_that_is_no_longer_offered_still_reads():
    assert PreprocessSpec((112, 96), "sphereface-left").frame.column == 0
    with pytest.raises(DataError, match=r"valid: arcface, sphereface\b(?!-)"):
        PreprocessSpec((112, 96), "spherface")
