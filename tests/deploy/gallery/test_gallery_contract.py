"""What every gallery promises, wherever its rows are kept: enrolling, finding, naming, merging."""

import math

import numpy as np
import pytest

from visavis.deploy.gallery.exchange import export_gallery, import_gallery
from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.maintenance import duplicates, measure_fpir
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import SourceFile
from visavis.deploy.gallery.unknowns import adopt, cluster_unknowns, drop_unknowns, keep_unknowns, read_unknowns
from visavis.errors import DataError

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(place):
    with place.open(MODEL, create=True) as made:
        yield made


def test_a_subject_is_found_by_the_quality_weighted_template(gallery):
    samples, weights = unit(1, 3), [0.2, 1.0, 0.5]
    enrollment = gallery.enroll("Ada", samples, weights=weights)
    assert (enrollment.added, enrollment.subject.samples) == (3, 3)
    gallery.enroll("Bob", unit(2))
    template = 0.2 * samples[0] + samples[1] + 0.5 * samples[2]
    template /= np.linalg.norm(template)
    [answer] = gallery.identify(samples[1], threshold=0.5, fmr=1e-3)
    assert answer.candidates[0].name == "Ada"
    assert answer.candidates[0].similarity == pytest.approx(float(template @ samples[1]), abs=1e-6)
    assert answer.searched == 2
    assert answer.fpir == pytest.approx(1 - 0.999**2)


def test_below_the_threshold_nobody_matches_and_without_one_nothing_is_decided(gallery):
    gallery.enroll("Ada", unit(1))
    [answer] = gallery.identify(unit(9), threshold=0.9)
    assert answer.decided
    assert answer.match is None
    assert [c.name for c in answer.candidates] == ["Ada"]
    [ranked] = gallery.identify(unit(1), threshold=None)
    assert not ranked.decided
    assert ranked.match is None
    assert ranked.candidates[0].similarity == pytest.approx(1, abs=1e-6)


def test_an_empty_gallery_knows_nobody(gallery):
    [answer] = gallery.identify(unit(1), threshold=0.1)
    assert answer.candidates == ()
    assert answer.match is None


def test_the_same_picture_is_enrolled_once(gallery):
    first = gallery.enroll("Ada", unit(1, 2), images=[b"p1", b"p2"])
    again = gallery.enroll("Ada", unit(1, 3), images=[b"p1", b"p3", b"p3"])
    assert (first.added, again.added, again.already) == (2, 1, 2)


def test_changes_after_the_first_search_are_found(gallery):
    gallery.enroll("Ada", unit(1))
    assert gallery.refresh() == 1
    gallery.enroll("Ada", unit(2))
    gallery.enroll_many(["Bob", "Cy"], unit(5, 2))
    both = fuse(np.concatenate([unit(1), unit(2)]), np.ones(2))
    assert gallery.search(both, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
    gallery.forget("Bob")
    assert {c.name for c in gallery.search(unit(5, 2)[0], top=5)[0]} == {"Ada", "Cy"}


def test_rename_merge_and_look_up(gallery):
    a, b = gallery.enroll("Ada", unit(1)).subject, gallery.enroll("Bob", unit(2), consent="signed form 7").subject
    assert gallery.update(b.id, name="Bóra").name == "Bóra"
    assert gallery.subject("Bóra").consent == "signed form 7"
    with pytest.raises(DataError, match="taken by subject"):
        gallery.update("Bóra", name="Ada")
    merged = gallery.merge("Ada", "Bóra").subject
    assert (merged.id, merged.samples, len(gallery)) == (a.id, 2, 1)
    assert gallery.search(unit(2), top=5)[0][0].name == "Ada"
    with pytest.raises(DataError, match="nobody with name 'Bóra'"):
        gallery.subject("Bóra")
    with pytest.raises(DataError, match="another subject"):
        gallery.merge("Ada", "Ada")


def test_subjects_are_listed_by_part_of_the_name_without_wildcards(gallery):
    gallery.enroll_many(["Äda 100%", "Bob_1", "Bobby"], unit(1, 3))
    assert [s.name for s in gallery.subjects("ÄDA")] == ["Äda 100%"]
    assert [s.name for s in gallery.subjects("b_1")] == ["Bob_1"]
    assert [s.name for s in gallery.subjects("%")] == ["Äda 100%"]
    assert [s.name for s in gallery.subjects(limit=1, offset=1)] == ["Bobby"]


@pytest.mark.parametrize(
    "name",
    [
        "Robert'); DROP TABLE subjects;--",
        "../../etc/passwd",
        "王小明",
        "O’Brien",
        "😀",
        "a\\b",
        "NULL",
        "x" * 200,
        "%s {0}",
    ],
)
def test_any_printable_name_is_just_a_name(gallery, name):
    gallery.enroll(name, unit(1))
    assert gallery.subject(name).name == name
    assert gallery.forget(name).complete
    assert len(gallery) == 0


def test_composed_and_decomposed_forms_are_one_name(gallery):
    gallery.enroll("Zoe\u0301", unit(1))
    assert gallery.enroll("Zoé", unit(2)).subject.samples == 2


@pytest.mark.parametrize("name", ["", "   ", "a\x00b", "a\nb", "x" * 201, "\ud800", "a\u2028b"])
def test_impossible_names_are_refused(gallery, name):
    with pytest.raises(DataError, match="name"):
        gallery.enroll(name, unit(1))
    assert len(gallery) == 0


@pytest.mark.parametrize(
    ("embeddings", "weights"),
    [
        (np.ones((1, DIM + 1)), None),
        (np.zeros((1, DIM)), None),
        (np.full((1, DIM), np.nan), None),
        (np.ones((2, DIM)), [1, -1]),
        (np.ones((2, DIM)), [1]),
        (np.ones((0, DIM)), None),
    ],
)
def test_impossible_embeddings_are_refused_and_leave_no_trace(gallery, embeddings, weights):
    with pytest.raises(DataError):
        gallery.enroll("Ada", embeddings, weights=weights)
    assert len(gallery) == 0


def test_a_sample_keeps_its_file_its_quality_and_its_time(gallery):
    file = SourceFile(b"\x01" * 32, "holiday/Ada 1.jpg")
    gallery.enroll("Ada", unit(1, 2), weights=[0.25, 0.75], images=[b"p", None], sources=[file, None])
    gallery.enroll("Bob", unit(2), crops=[b"a crop"])
    with gallery.store.read() as db:
        rows = db.execute(
            "SELECT source, source_name, quality, weight, picture, created > 1e9, crop FROM samples ORDER BY id"
        ).fetchall()
    assert rows == [
        (file.digest, file.name, 0.25, 0.25, b"p", 1, None),
        (None, None, 0.75, 0.75, None, 1, None),
        (None, None, None, 1.0, None, 1, b"a crop"),
    ]
    assert gallery.crop("Bob") == b"a crop"
    assert gallery.crop("Ada") is None


def test_a_subject_whose_samples_fall_apart_is_found_by_either_look(gallery):
    a, b = unit(1), unit(2)
    looks = np.concatenate([a + 0.1 * unit(3), a + 0.1 * unit(4), a + 0.1 * unit(5), b + 0.1 * unit(6)])
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    gallery.enroll("Ada", looks, threshold=0.5)
    gallery.enroll_many(["Bob", "Cy"], unit(7, 2))
    for probe in (fuse(looks, np.ones(4)), looks[3]):
        found = gallery.search(probe, top=3)[0]
        assert found[0].name == "Ada"
        assert found[0].similarity == pytest.approx(1, abs=1e-6)
        assert sorted(c.name for c in found) == ["Ada", "Bob", "Cy"]
    assert len(gallery) == gallery.refresh() == 3
    gallery.store.verify()
    gallery.merge("Bob", "Ada")
    found = gallery.search(looks[3], top=5)[0]
    assert [c.name for c in found] == ["Bob", "Cy"]
    assert found[0].similarity == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("who", [True, False, 0, -1, 10**30, 2**63, "", "nobody"])
def test_who_is_not_there_is_said_whatever_is_asked(gallery, who):
    gallery.enroll("Ada", unit(1))
    for ask in (gallery.subject, gallery.crop, gallery.forget, lambda w: gallery.update(w, consent="x")):
        with pytest.raises(DataError):
            ask(who)
    with pytest.raises(DataError):
        gallery.merge("Ada", who)
    assert [s.name for s in gallery.subjects()] == ["Ada"]


@pytest.mark.parametrize("top", [0, -1, 1.5, math.nan, True])
def test_impossible_counts_of_candidates_are_refused(gallery, top):
    gallery.enroll("Ada", unit(1))
    with pytest.raises(DataError, match="candidates"):
        gallery.search(unit(1), top=top)


def test_more_candidates_than_people_are_all_people(gallery):
    gallery.enroll_many(["Ada", "Bob"], unit(1, 2))
    assert [c.name for c in gallery.search(unit(1, 2)[1], top=10**12)[0]] == ["Bob", "Ada"]


def test_several_probes_at_once_are_answered_each(gallery):
    people = unit(1, 40)
    gallery.enroll_many([f"s{i}" for i in range(40)], people)
    answers = gallery.search(people, top=2)
    assert [found[0].name for found in answers] == [f"s{i}" for i in range(40)]
    truth = np.sort(people @ people.T, axis=1)[:, ::-1][:, :2]
    np.testing.assert_allclose([[c.similarity for c in found] for found in answers], truth, atol=2e-6)


def test_a_name_with_an_invisible_character_is_no_second_person(gallery):
    first = gallery.enroll("Ada", unit(1)).subject
    again = gallery.enroll("A\u200bda", unit(2)).subject
    assert (again.id, again.samples) == (first.id, 2)
    assert gallery.subject("Ada\u2060").id == first.id
    gallery.enroll("Bob", unit(3))
    with pytest.raises(DataError, match="taken by subject"):
        gallery.update("Bob", name="Ada\u00ad")


@pytest.mark.parametrize("note", ["a\0b", "x" * 5000, "\u202eolleh"])
def test_impossible_notes_are_refused(gallery, note):
    with pytest.raises(DataError, match="note"):
        gallery.enroll("Ada", unit(1), consent=note)
    assert len(gallery) == 0
    gallery.enroll("Ada", unit(1))
    with pytest.raises(DataError, match="note"):
        gallery.update("Ada", consent=note)
    assert gallery.subject("Ada").consent == ""


def test_numbers_of_those_who_are_gone_are_not_given_again(gallery):
    gallery.enroll("Ada", unit(1))
    last = gallery.enroll("Bob", unit(2)).subject.id
    gallery.forget("Bob")
    assert gallery.enroll("Cy", unit(3)).subject.id == last + 1


def test_letters_of_other_scripts_are_found_whatever_their_case(gallery):
    gallery.enroll_many(["Straße", "ΣΊΣΥΦΟΣ", "İstanbul"], unit(1, 3))
    assert [s.name for s in gallery.subjects("STRASSE")] == ["Straße"]
    assert [s.name for s in gallery.subjects("σίσυφος")] == ["ΣΊΣΥΦΟΣ"]
    assert [s.name for s in gallery.subjects()] == ["Straße", "İstanbul", "ΣΊΣΥΦΟΣ"]


def test_another_model_and_an_absent_gallery_are_refused(place):
    with pytest.raises(DataError, match="no such gallery"):
        place.open(MODEL)
    with pytest.raises(DataError, match="wants the model"):
        place.open(create=True)
    with place.open(MODEL, create=True, retention_days=7) as gallery:
        assert not gallery.encrypted
    with pytest.raises(DataError, match="belongs to the model 'fake'"):
        place.open(ModelIdentity("other", DIM, "b" * 64), create=True)
    with place.open() as gallery:
        assert (gallery.model, gallery.retention_days) == (MODEL, 7)


def test_a_gallery_opened_for_reading_can_be_searched_and_not_changed(place):
    with place.open(MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1))
    with place.open(MODEL, read_only=True) as frozen:
        assert frozen.search(unit(1), top=1)[0][0].name == "Ada"
        assert frozen.subject("Ada").samples == 1
        for change in (
            lambda: frozen.enroll("Bob", unit(2)),
            lambda: frozen.forget("Ada"),
            lambda: frozen.update("Ada", name="Eve"),
            lambda: keep_unknowns(frozen, [unit(3)[0]]),
        ):
            with pytest.raises(DataError, match="reading only"):
                change()


def test_nobody_twice_is_found_by_similarity_and_strangers_are_counted(gallery):
    people = unit(1, 30)
    gallery.enroll_many([f"s{i}" for i in range(30)], people)
    gallery.enroll("twin", people[4] + 0.01 * unit(5)[0])
    [pair] = duplicates(gallery, 0.9)
    assert {pair.first.name, pair.second.name} == {"s4", "twin"}
    measured = measure_fpir(gallery, 0.9, probes=31)
    assert (measured.probes, measured.matched) == (31, 2)


def test_unknown_faces_are_kept_grouped_adopted_and_erased(gallery):
    face = unit(1)[0]
    keep_unknowns(gallery, [face, face + 0.05 * unit(2)[0], unit(3)[0]])
    ids, vectors = read_unknowns(gallery)
    assert vectors.shape == (3, DIM)
    [group] = cluster_unknowns(gallery, 0.8)
    assert group.unknowns == tuple(ids[:2])
    assert adopt(gallery, "Ada", group.unknowns).added == 2
    assert read_unknowns(gallery)[0] == ids[2:]
    assert gallery.search(face, top=1)[0][0].name == "Ada"
    assert drop_unknowns(gallery) == 1
    assert read_unknowns(gallery)[0] == []


def test_an_export_taken_in_gives_the_same_people(place, gallery, tmp_path):
    gallery.enroll("Ada", unit(1, 3), weights=[0.2, 1, 0.5], consent="form 7", retention_days=30)
    gallery.enroll_many(["Bob", "Cy"], unit(2, 2))
    assert export_gallery(gallery, tmp_path / "people.npz") == 3
    gallery.forget("Ada", "Cy")
    done = import_gallery(gallery, tmp_path / "people.npz")
    assert (done.subjects, done.samples, done.already) == (2, 4, 1)
    gallery.store.verify()
    ada = gallery.subject("Ada")
    assert (ada.samples, ada.consent, len(gallery)) == (3, "form 7", 3)
    template = fuse(unit(1, 3), np.array([0.2, 1, 0.5]))
    assert gallery.search(template, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
