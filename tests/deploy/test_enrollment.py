"""Enrolling checks itself: known files cost nothing, one picture is one sample, strangers in a folder are told."""

import numpy as np
import pytest

from visavis.deploy.enrollment import SAME_IMAGE, enroll_images, source_file
from visavis.deploy.gallery.records import StorageError
from visavis.deploy.recognizer import Recognizer
from visavis.models.card import ModelCard
from visavis.vision.images import encode
from visavis.vision.preprocessing import PreprocessSpec

DIM, T = 24, 0.5


class PixelEmbedder:
    """Embeds a crop as the values its first pixels hold, so that a test writes embeddings as pictures."""

    dim = DIM

    def __init__(self):
        self.looked_at = 0

    def embed(self, crops):
        self.looked_at += len(crops)
        rows = crops[:, 0, :DIM, 0].astype(np.float32) - 128
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def recognizer():
    spec = PreprocessSpec()
    card = ModelCard("pixels", "fake", DIM, spec, weights_digest="c" * 64)
    return Recognizer(PixelEmbedder(), spec=spec, card=card)


@pytest.fixture
def gallery(place, recognizer):
    with place.open(recognizer.identity, create=True) as made:
        yield made


@pytest.fixture
def paint(tmp_path):
    """Writes pictures of people: the same number is the same person, up to noise."""
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0]

    def write(*people, noise=0.5, folder="in"):
        (tmp_path / folder).mkdir(exist_ok=True)
        files = []
        for i, person in enumerate(people):
            rng = np.random.default_rng([person, i])
            vector = directions[person] + noise * rng.standard_normal(DIM) / np.sqrt(DIM)
            crop = rng.integers(0, 256, (112, 112, 3), np.uint8)
            crop[0, :DIM] = np.clip(128 + 100 * vector / np.abs(vector).max(), 0, 255).round()[:, None]
            files.append(tmp_path / folder / f"{person} {i}.png")
            files[-1].write_bytes(encode(crop, ".png"))
        return files

    return write


def enroll(recognizer, gallery, files, name="Ada", **options):
    return enroll_images(recognizer, gallery, name, files, aligned=True, threshold=T, **options)


def test_files_that_are_there_are_not_looked_at_again(recognizer, gallery, paint, tmp_path):
    files = paint(1, 1, 1)
    first = enroll(recognizer, gallery, files)
    assert (first.enrollment.added, first.enrollment.already, recognizer.embedder.looked_at) == (3, 0, 3)
    moved = files[0].rename(tmp_path / "another name.png")
    again = enroll(recognizer, gallery, [moved, *files[1:]], consent="x", retention_days=3)
    assert (again.enrollment.added, again.enrollment.already, recognizer.embedder.looked_at) == (0, 3, 3)
    assert again.enrollment.subject == first.enrollment.subject
    assert [s.source_name for s in gallery.samples("Ada")] == [f.name for f in files]
    assert enroll(recognizer, gallery, files[1:2], name="Bob").enrollment.added == 1  # it is another subject's


def test_one_picture_encoded_or_cut_out_another_way_is_one_sample(recognizer, gallery, paint, tmp_path):
    [file] = paint(1)
    enroll(recognizer, gallery, [file])
    crop = recognizer.best(file, aligned=True).crop.copy()
    crop[50:] = 255 - crop[50:]  # other bytes, the same embedding
    other = tmp_path / "other.png"
    other.write_bytes(encode(crop, ".png"))
    again = enroll(recognizer, gallery, [other])
    assert (again.enrollment.added, again.enrollment.already) == (0, 1)


def test_a_sample_without_a_file_learns_it_and_is_known_from_then_on(recognizer, gallery, paint):
    [file] = paint(1)
    gallery.enroll("Ada", recognizer.best(file, aligned=True).embedding)
    seen = recognizer.embedder.looked_at
    for _ in range(2):
        assert enroll(recognizer, gallery, [file]).enrollment.already == 1
    assert recognizer.embedder.looked_at == seen + 1
    assert gallery.samples("Ada")[0].source_name == file.name


def test_similarity_at_the_bound_is_one_picture_and_below_it_is_not(gallery):
    a = np.eye(DIM, dtype=np.float32)[0]
    at, below = (np.array([c, np.sqrt(1 - c * c), *[0] * (DIM - 2)]) for c in (SAME_IMAGE + 2e-6, SAME_IMAGE - 2e-6))
    gallery.enroll("Ada", a)
    assert gallery.enroll("Ada", at, same=SAME_IMAGE).added == 0
    assert gallery.enroll("Ada", [below, at], same=SAME_IMAGE).added == 1
    assert gallery.enroll("Ada", a).added == 1  # who does not ask is not second-guessed


def test_a_folder_of_twelve_people_is_told_and_refused_when_strict(recognizer, gallery, paint):
    files = paint(*range(12))
    done = enroll(recognizer, gallery, files)
    assert done.enrollment.added == 12
    assert len(done.doubts) == 12
    assert all("unlike the subject's other pictures" in reason for _, reason in done.doubts)
    assert len(done.looks) > 1
    strict = enroll(recognizer, gallery, files, name="Eve", strict=True)
    assert strict.enrollment is None
    assert len(strict.refused) == 12


def test_a_stranger_among_many_is_the_one_told(recognizer, gallery, paint):
    files = paint(1, 1, 1, 2, 1, 1)
    strict = enroll(recognizer, gallery, files, strict=True)
    assert strict.enrollment.added == 5
    assert [name for name, _ in strict.refused] == [str(files[3])]
    later = enroll(recognizer, gallery, files)  # what was enrolled counts among the others
    assert [name for name, reason in later.doubts if "unlike" in reason] == [str(files[3])]
    assert later.looks == (5, 1)


def test_nothing_is_doubted_without_a_threshold_or_without_another_picture(recognizer, gallery, paint):
    files = paint(1, 2)
    assert enroll(recognizer, gallery, files[:1], strict=True).enrollment.added == 1
    without = enroll_images(recognizer, gallery, "Bob", files, aligned=True)
    assert [reason for _, reason in without.doubts if "unlike" in reason] == []
    assert without.looks == (2,)


def test_a_file_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"abc")
    (tmp_path / "b.png").write_bytes(b"abc")
    a, b = source_file(tmp_path / "a.png"), source_file(tmp_path / "b.png")
    assert (a.digest, a.name, b.name) == (b.digest, "a.png", "b.png")
    with pytest.raises(OSError, match="none"):
        source_file(tmp_path / "none.png")


def test_what_was_kept_is_not_called_failed_because_the_gallery_went_away_afterwards(
    recognizer, gallery, paint, monkeypatch
):
    def away(*_, **__):
        raise StorageError("the database cannot be reached")

    monkeypatch.setattr(gallery, "search", away)
    done = enroll(recognizer, gallery, paint(1))
    assert done.enrollment.added == 1
    assert done.doubts[-1][1] == "enrolled, but whom it resembles was not found out: the database cannot be reached"
    assert gallery.subject("Ada").samples == 1
