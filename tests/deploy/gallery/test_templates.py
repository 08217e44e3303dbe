"""Several templates of a subject whose samples fall apart at the threshold, one otherwise."""

import numpy as np
import pytest

from visavis.deploy.gallery.exchange import export_gallery, import_gallery
from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.maintenance import duplicates, measure_fpir
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.templates import MAX_TEMPLATES, similarity_to_rest, template_numbers

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)


def looks(seed, *counts, noise=0.35):
    """Unit rows around as many orthogonal directions as there are counts."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0][: len(counts)]
    rows = np.repeat(directions, counts, axis=0) + noise * rng.standard_normal((sum(counts), DIM)) / np.sqrt(DIM)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["float32", "int8", "postgres"])
def gallery(request, tmp_path):
    if request.param == "postgres":
        server, schema = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
        made = PgGallery(server.dsn, MODEL, schema=schema, create=True)
    else:
        made = Gallery(tmp_path / "people.db", MODEL, create=True, precision=request.param)
    with made:
        yield made


def templates(gallery, name):
    return [sample.template for sample in gallery.samples(name)]


def test_the_largest_group_is_the_first_and_a_sample_alone_one_of_its_own():
    assert template_numbers(looks(1, 2, 5, 1), 0.5).tolist() == [1, 1, 0, 0, 0, 0, 0, 2]
    assert template_numbers(looks(1, 6), 0.5).tolist() == [0] * 6
    assert template_numbers(looks(1, 1), 0.5).tolist() == [0]
    assert template_numbers(looks(1, 3), 1.0).tolist() == [0] * 3


def test_a_subject_has_no_more_templates_than_searches_can_afford():
    numbers = template_numbers(looks(2, *[1] * 20, 3), 0.5)
    assert len(set(numbers.tolist())) == MAX_TEMPLATES
    assert numbers[-3:].tolist() == [0, 0, 0]


def test_each_sample_is_compared_with_the_template_of_the_others():
    rows, weights = looks(3, 4, 1), np.array([1, 0.5, 1, 1, 1])
    expected = [rows[i] @ fuse(np.delete(rows, i, 0), np.delete(weights, i)) for i in range(5)]
    np.testing.assert_allclose(similarity_to_rest(rows, weights), expected, atol=1e-6)
    assert similarity_to_rest(rows, weights).argmin() == 4
    assert similarity_to_rest(rows[:1], weights[:1]).tolist() == [1]


def test_the_rarer_look_is_found_where_samples_fall_apart(gallery):
    rows = looks(4, 10, 2)
    gallery.enroll("Bob", looks(9, 1))
    gallery.enroll("Ada", rows[:10], threshold=0.5)
    assert templates(gallery, "Ada") == [0] * 10
    gallery.enroll("Ada", rows[10:], threshold=0.5)
    assert templates(gallery, "Ada") == [0] * 10 + [1] * 2
    [(best, *_)] = gallery.search(rows[11], top=2)
    assert best.name == "Ada"
    assert best.similarity == pytest.approx(float(fuse(rows[10:], np.ones(2)) @ rows[11]), abs=1e-5)
    whole = fuse(rows, np.ones(12))
    assert gallery.search(whole, top=1)[0][0].similarity == pytest.approx(1, abs=1e-5)
    assert len(gallery) == gallery.refresh() == 2
    assert [c.name for c in gallery.search(rows[0], top=5)[0]] == ["Ada", "Bob"]  # each subject once


def test_without_a_threshold_there_is_one_template(gallery):
    rows = looks(4, 10, 2)
    gallery.enroll("Ada", rows)
    assert templates(gallery, "Ada") == [0] * 12
    assert gallery.search(rows[11], top=1)[0][0].similarity < 0.5


def test_merging_makes_templates_anew_or_keeps_those_there_are_apart(gallery):
    rows = looks(5, 6, 2, 3)
    gallery.enroll("Ada", rows[:8], threshold=0.5)
    gallery.enroll("Eve", np.concatenate([rows[8:], rows[6:7]]), threshold=0.5)
    assert templates(gallery, "Eve") == [0, 0, 0, 1]
    gallery.merge("Ada", "Eve")
    assert templates(gallery, "Ada") == [0] * 6 + [1, 1] + [0] * 3 + [2]
    gallery.enroll("Ada", looks(6, 1), threshold=0.5)
    assert templates(gallery, "Ada")[:12] == [0] * 6 + [1, 1] + [2] * 3 + [1]


def test_erasing_and_splitting_make_templates_anew(gallery):
    rows = looks(5, 4, 2)
    gallery.enroll("Ada", rows, threshold=0.5)
    gallery.split("Ada", [1, 5], "Eve", threshold=0.5)
    assert (templates(gallery, "Ada"), templates(gallery, "Eve")) == ([0, 0, 0, 1], [0, 1])
    gallery.forget_samples("Ada", [6], threshold=0.5)
    assert templates(gallery, "Ada") == [0, 0, 0]
    assert gallery.search(rows[5], top=2)[0][0].name == "Eve"


def test_a_subject_of_two_looks_is_neither_its_own_duplicate_nor_its_own_stranger(gallery):
    rows = looks(7, 3, 3, 2)
    gallery.enroll("Ada", rows[:6], threshold=0.5)
    gallery.enroll("Eve", rows[6:], threshold=0.5)
    assert duplicates(gallery, 0.3) == []
    measured = measure_fpir(gallery, 0.5)
    assert (measured.probes, measured.matched) == (2, 0)
    gallery.enroll("Ada again", rows[3:6])
    assert [(d.first.name, d.second.name) for d in duplicates(gallery, 0.9)] == [("Ada", "Ada again")]


def test_an_import_keeps_its_templates_apart_from_those_there_are(gallery, tmp_path):
    rows = looks(5, 4, 2, 2)
    gallery.enroll("Ada", rows[:6], threshold=0.5)
    with Gallery(tmp_path / "other.db", MODEL, create=True) as other:
        other.enroll("Ada", np.concatenate([looks(8, 3), rows[6:]]), threshold=0.5)
        export_gallery(other, tmp_path / "e.npz")
    import_gallery(gallery, tmp_path / "e.npz")
    assert templates(gallery, "Ada") == [0] * 4 + [1] * 2 + [0] * 3 + [2] * 2
    assert gallery.search(fuse(rows[6:], np.ones(2)), top=1)[0][0].similarity == pytest.approx(1, abs=1e-5)
