"""Unknown faces: kept once, grouped at the threshold, adopted with their quality, erased without a trace."""

import time

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import AesGcm, NoCipher
from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.records import SourceFile
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.unknowns import (
    adopt,
    cluster_unknowns,
    drop_unknowns,
    forget_unknowns,
    keep_unknowns,
    known_unknowns,
    read_unknowns,
    unknown_faces,
)
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 32, "a" * 64)


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, 32)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["plain", "encrypted", "postgres"])
def gallery(request, tmp_path):
    if request.param == "postgres":
        server, schema = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
        made = PgGallery(server.dsn, MODEL, schema=schema, create=True)
    else:
        cipher = NoCipher() if request.param == "plain" else AesGcm(b"k" * 32)
        made = Gallery(tmp_path / "people.db", MODEL, create=True, cipher=cipher)
    with made:
        yield made


def test_a_face_is_kept_once_whatever_way_it_comes_again(gallery):
    a, b, c = unit(1, 3)
    assert keep_unknowns(gallery, [a, b, a]) == [1, 2, 1]
    assert keep_unknowns(gallery, [c, b + 1e-4 * unit(9)[0], 3 * a, c]) == [3, 2, 1, 3]
    ids, vectors = read_unknowns(gallery)
    assert ids == [1, 2, 3]
    np.testing.assert_allclose(vectors, [a, b, c], atol=1e-6)
    assert keep_unknowns(gallery, []) == []


def test_a_stranger_who_comes_again_is_told_by_number_from_the_threshold_on(gallery):
    a, b = np.eye(32)[:2]
    keep_unknowns(gallery, [a, b])
    probes = [0.6 * a + 0.8 * b, 0.8 * a + 0.6 * b, np.eye(32)[2]]
    assert known_unknowns(gallery, probes, 0.79) == [(2, pytest.approx(0.8)), (1, pytest.approx(0.8)), None]
    assert known_unknowns(gallery, probes, 0.81) == [None] * 3
    assert known_unknowns(gallery, [], 0.5) == []


def test_numbers_of_erased_faces_are_not_given_again(gallery):
    assert keep_unknowns(gallery, unit(1, 2)) == [1, 2]
    assert drop_unknowns(gallery, [2]) == 1
    assert keep_unknowns(gallery, unit(2, 2)) == [3, 4]


@pytest.mark.parametrize(
    ("faces", "qualities"),
    [([np.ones(31)], None), ([np.full(32, np.nan)], None), ([np.ones(32)], [-1.0]), ([np.ones(32)], [1.0, 2.0])],
)
def test_impossible_faces_are_refused_and_nothing_kept(gallery, faces, qualities):
    with pytest.raises(DataError):
        keep_unknowns(gallery, faces, qualities=qualities)
    assert read_unknowns(gallery)[0] == []


def test_one_strangers_pictures_are_one_group(gallery):
    """Twelve pictures of one person among eleven people of one picture each: HDBSCAN made 0 to 3 groups of these."""
    rng = np.random.default_rng(0)
    person = unit(1) + 0.8 * unit(2, 12)
    order = rng.permutation(23)
    faces = np.concatenate([person, unit(3, 11)])[order]
    numbers = keep_unknowns(gallery, faces / np.linalg.norm(faces, axis=1, keepdims=True))
    [group] = cluster_unknowns(gallery, 0.45)
    assert set(group.unknowns) == {n for n, i in zip(numbers, order, strict=True) if i < 12}
    own = person / np.linalg.norm(person, axis=1, keepdims=True)
    assert group.lowest == pytest.approx(float((own @ own.T).min()), abs=1e-5)


def test_adopting_weighs_by_quality_and_takes_crops_and_files_along(gallery):
    faces = unit(1, 3)
    sources = [SourceFile(bytes([i]) * 32, f"{i}.jpg") for i in range(3)]
    keep_unknowns(
        gallery, faces, qualities=[0.2, 1, 0.5], images=[b"p" * 32, None, b"q" * 32], crops=[b"crop", None, None],
        sources=sources,
    )  # fmt: skip
    first, second, _ = unknown_faces(gallery, [1, 2, 3])
    assert (first.quality, first.image, first.source, first.crop) == (0.2, b"p" * 32, sources[0], b"crop")
    assert first.created == pytest.approx(time.time(), abs=60)
    assert (second.image, second.crop) == (None, None)
    done = adopt(gallery, "Ada", [1, 3, 1], consent="form", retention_days=3, threshold=-0.9)
    assert (done.added, done.subject.consent) == (2, "form")
    samples = gallery.samples("Ada")
    assert [(s.quality, s.weight, s.source_name, s.crop) for s in samples] == [
        (0.2, 0.2, "0.jpg", True),
        (0.5, 0.5, "2.jpg", False),
    ]
    template = fuse(faces[[0, 2]], np.array([0.2, 0.5]))
    assert gallery.search(template, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
    assert gallery.crop("Ada") == b"crop"
    assert gallery.known_sources("Ada", sources) == [True, False, True]
    assert read_unknowns(gallery)[0] == [2]
    for numbers in ([1], [], [2, 99]):
        with pytest.raises(DataError, match="unknown face"):
            adopt(gallery, "Eve", numbers)
    assert [s.name for s in gallery.subjects()] == ["Ada"]


def test_erasing_is_searched_for_and_goes_by_age_or_number(gallery, kept_bytes):
    keep_unknowns(gallery, unit(1, 3), crops=[bytes(range(256)) * 40] * 3)
    with gallery.store.write() as db:
        db.execute("UPDATE unknown_faces SET created = created - 10 * 86400 WHERE id = 2")
        gallery.rows.resum(db, "unknown_faces", "id = 2")
    with gallery.store.read() as db:
        rows = db.execute("SELECT vector FROM unknown_faces ORDER BY id").fetchall()
    stored = [bytes(row[0]) for row in rows]
    assert forget_unknowns(gallery, older_than_days=11).unknown_faces == 0
    receipt = forget_unknowns(gallery, older_than_days=9)
    assert (receipt.unknown_faces, receipt.crops, receipt.found, receipt.tables) == (1, 1, 0, ("unknown_faces",))
    assert receipt.complete
    assert receipt.fingerprints > 0 or isinstance(gallery, PgGallery)  # which rewrites and counts
    everything = kept_bytes(gallery)
    assert stored[1] not in everything
    assert stored[0] in everything
    assert forget_unknowns(gallery, [1, 77]).unknown_faces == 1
    assert read_unknowns(gallery)[0] == [3]
