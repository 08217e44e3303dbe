"""The gallery: enrolling, finding, forgetting, durability and what it refuses."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import KEY_VARIABLE, AesGcm
from visavis.deploy.gallery.index import fuse
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError, ModelFormatError
from visavis.models.card import ModelCard
from visavis.vision.preprocessing import PreprocessSpec

DIM = 32
MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", MODEL, create=True) as made:
        yield made


def test_a_subject_is_found_by_the_quality_weighted_template(gallery):
    samples, weights = unit(1, 3), [0.2, 1.0, 0.5]
    enrolment = gallery.enroll("Ada", samples, weights=weights)
    assert (enrolment.added, enrolment.subject.samples) == (3, 3)
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
    first = gallery.enroll("Ada", unit(1, 2), pictures=[b"p1", b"p2"])
    again = gallery.enroll("Ada", unit(1, 3), pictures=[b"p1", b"p3", b"p3"])
    assert (first.added, again.added, again.already) == (2, 1, 2)


def test_opposite_samples_fall_back_to_the_best():
    rows = np.array([[1, 0], [-1, 0]], np.float32)
    np.testing.assert_array_equal(fuse(rows, np.array([1.0, 1.0])), rows[0])


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_every_precision_gives_the_exact_similarities_of_a_plain_product(tmp_path, precision):
    people, probes = unit(3, 900, 64), unit(4, 7, 64)
    with Gallery(tmp_path / "g.db", ModelIdentity("m", 64, "b"), create=True, precision=precision) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(900)], people)
        for several in (probes[:1], probes):
            truth = several @ people.T
            for row, found in zip(truth, gallery.search(several, top=3), strict=True):
                best = np.argsort(-row)[:3]
                assert [c.name for c in found] == [f"s{i}" for i in best]
                np.testing.assert_allclose([c.similarity for c in found], row[best], atol=1e-6)


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


def test_forgetting_leaves_no_byte_behind(gallery):
    crop = np.random.default_rng(0).bytes(20_000)
    secret = unit(7, 2)
    gallery.enroll("Zebulon Quackenbush", secret, crops=[crop, crop], consent="letter of 3 May")
    gallery.enroll_many([f"s{i}" for i in range(50)], unit(8, 50))
    gallery.refresh()
    stored = gallery.store._db.execute("SELECT vector FROM samples ORDER BY id").fetchone()[0]
    np.testing.assert_allclose(np.frombuffer(stored, np.float32), secret[0], atol=1e-6)
    needles = [stored, crop[5000:5100], b"Zebulon Quackenbush", b"letter of 3 May"]
    gallery.store.scrub()
    before = gallery.path.read_bytes()
    assert all(needle in before for needle in needles)
    receipt = gallery.forget("Zebulon Quackenbush")
    assert (receipt.subjects, receipt.samples, receipt.crops, receipt.index_rows) == (1, 2, 2, 1)
    assert receipt.complete
    assert receipt.found == 0
    assert receipt.fingerprints >= 6
    everything = b"".join(path.read_bytes() for path in gallery.path.parent.iterdir())
    assert not any(needle in everything for needle in needles)
    raw = gallery._index.vectors._data
    assert not (np.abs(raw @ secret[0]) > 0.99).any()
    with pytest.raises(DataError, match="nobody"):
        gallery.forget("Zebulon Quackenbush")


def test_the_receipt_finds_what_is_left(gallery, monkeypatch):
    """The search is real: with the zeroing and rewriting switched off it reports the remainder."""
    gallery.enroll("Zebulon Quackenbush", unit(7))
    gallery.enroll("other", unit(8))
    gallery.store._db.execute("PRAGMA secure_delete = OFF")
    monkeypatch.setattr(gallery.store, "scrub", lambda: True)
    receipt = gallery.forget("Zebulon Quackenbush")
    assert receipt.found > 0
    assert not receipt.complete


def test_a_picture_that_somebody_else_still_has_is_no_remainder(gallery):
    gallery.enroll("Ada Lovelace", unit(7))
    gallery.enroll("Ada Byron", unit(7))
    assert gallery.forget("Ada Lovelace").complete


def test_forgetting_somebody_unknown_erases_nobody(gallery):
    gallery.enroll("Ada", unit(1))
    with pytest.raises(DataError, match="nobody"):
        gallery.forget("Ada", "Bob")
    assert len(gallery) == 1


def test_after_the_retention_period_nobody_is_found_and_the_sweep_erases(tmp_path):
    with Gallery(tmp_path / "g.db", MODEL, create=True, retention_days=1) as gallery:
        kept = gallery.enroll("Bob", unit(2), retention_days=30).subject
        gallery.enroll("Ada", unit(1), retention_days=0.2 / 86_400)
        assert kept.expires == pytest.approx(time.time() + 30 * 86_400, abs=60)
        assert gallery.search(unit(1), top=1)[0][0].name == "Ada"
        time.sleep(0.25)
        assert [c.name for c in gallery.search(unit(1), top=5)[0]] == ["Bob"]
        assert len(gallery) == 1
        receipt = gallery.sweep()
        assert receipt is not None
        assert (receipt.subjects, receipt.complete) == (1, True)
        assert gallery.sweep() is None
        assert gallery.enroll("Cy", unit(3)).subject.expires == pytest.approx(time.time() + 86_400, abs=60)


def test_samples_of_an_expired_subject_do_not_come_back_with_the_name(gallery):
    gallery.enroll("Ada", unit(1), retention_days=0.1 / 86_400)
    time.sleep(0.15)
    assert gallery.enroll("Ada", unit(2)).subject.samples == 1


def test_another_model_is_refused(gallery):
    with pytest.raises(DataError, match="belongs to the model 'fake'"):
        Gallery(gallery.path, ModelIdentity("other", DIM, "b" * 64))


def test_the_identity_depends_on_weights_and_preprocessing():
    card = ModelCard("m", "fake", 8, PreprocessSpec(), weights_digest="1" * 64)
    same = ModelIdentity.of_card(card.with_changes(name="m", thresholds={"1e-3": {"threshold": 0.3}}))
    assert ModelIdentity.of_card(card) == same
    assert ModelIdentity.of_card(card.with_changes(weights_digest="2" * 64)).digest != same.digest
    bgr = card.with_changes(preprocess=PreprocessSpec(channels="BGR"))
    assert ModelIdentity.of_card(bgr).digest != same.digest
    with pytest.raises(ModelFormatError, match="weights_digest"):
        ModelIdentity.of_card(card.with_changes(weights_digest=""))


def test_a_gallery_that_is_not_there_or_not_one_is_refused_in_plain_words(tmp_path):
    with pytest.raises(DataError, match="no such gallery"):
        Gallery(tmp_path / "absent.db", MODEL)
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(DataError, match="not a gallery"):
        Gallery(tmp_path / "text.db", MODEL)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(DataError, match="not a visavis gallery"):
        Gallery(tmp_path / "other.db", MODEL, create=True)
    with pytest.raises(DataError, match="wants the model"):
        Gallery(tmp_path / "new.db", create=True)
    with pytest.raises(DataError):
        Gallery(tmp_path / "no" / "folder" / "g.db", MODEL, create=True)


def test_a_damaged_file_is_reported(tmp_path):
    path = tmp_path / "g.db"
    with Gallery(path, MODEL, create=True) as gallery:
        gallery.enroll_many([f"s{i}" for i in range(3000)], unit(1, 3000))
    data = bytearray(path.read_bytes())
    data[16_384 * 4 : 16_384 * 9] = os.urandom(16_384 * 5)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"), Gallery(path, MODEL) as gallery:
        gallery.store.verify()
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(DataError, match="damaged"), Gallery(path, MODEL) as gallery:
        gallery.store.verify()


def test_a_full_disk_keeps_the_old_state(gallery):
    gallery.enroll("Ada", unit(1))
    pages = gallery.store._db.execute("PRAGMA page_count").fetchone()[0]
    gallery.store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DataError, match="disk is full"):
        gallery.enroll_many([f"s{i}" for i in range(2000)], unit(2, 2000))
    gallery.store._db.execute("PRAGMA max_page_count = 1000000")
    assert [s.name for s in gallery.subjects()] == ["Ada"]
    gallery.enroll("Bob", unit(2))
    assert len(gallery) == 2


def test_a_file_opened_for_reading_can_be_searched_and_not_changed(gallery):
    gallery.enroll("Ada", unit(1))
    gallery.close()
    with Gallery(gallery.path, MODEL, read_only=True) as frozen:
        assert frozen.search(unit(1), top=1)[0][0].name == "Ada"
        with pytest.raises(DataError, match="reading only"):
            frozen.enroll("Bob", unit(2))


def test_a_second_process_sees_what_the_first_wrote_and_the_other_way(gallery):
    gallery.enroll("Ada", unit(1))
    with Gallery(gallery.path, MODEL) as other:
        assert other.search(unit(1), top=1)[0][0].name == "Ada"
        other.enroll("Bob", unit(2))
        assert gallery.search(unit(2), top=1)[0][0].name == "Bob"
        gallery.forget("Ada")
        assert {c.name for c in other.search(unit(1), top=5)[0]} == {"Bob"}


def test_forgetting_says_when_a_reader_still_holds_the_old_state(gallery):
    gallery.enroll("Ada Lovelace", unit(1))
    gallery.store.wait = 0.05
    reader = sqlite3.connect(gallery.path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM samples").fetchone()
    receipt = gallery.forget("Ada Lovelace")
    assert not receipt.complete
    assert "another process" in receipt.note
    reader.close()
    assert gallery.store.scrub()


def test_threads_search_while_others_enrol_and_forget(gallery):
    """No search ever pairs one subject's name with another's vector."""
    people = unit(11, 60)
    gallery.enroll_many([f"s{i}" for i in range(60)], people)
    wrong, stop = [], threading.Event()

    def look(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            i = int(rng.integers(60))
            best = gallery.search(people[i], top=1)[0][0]
            if best.similarity > 0.999 and best.name != f"s{i}":
                wrong.append((i, best))

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for i in range(30):
        gallery.forget(f"s{i}")
        gallery.enroll(f"s{i}", people[i])
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(gallery) == 60


def test_encrypted_galleries_hold_no_plain_vector_and_want_their_key(tmp_path, monkeypatch):
    path, key, vector = tmp_path / "g.db", AesGcm(b"k" * 32), unit(1)
    with Gallery(path, MODEL, create=True, seal=key) as gallery:
        gallery.enroll("Ada", vector, crops=[b"a crop " * 100])
        assert gallery.encrypted
        assert gallery.search(vector, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)
        assert gallery.crop("Ada") == b"a crop " * 100
    data = path.read_bytes()
    assert vector.tobytes()[:32] not in data
    assert b"a crop a crop" not in data
    with pytest.raises(DataError, match="encrypted"):
        Gallery(path, MODEL)
    with pytest.raises(DataError, match="key"):
        Gallery(path, MODEL, seal=AesGcm(b"x" * 32))
    monkeypatch.setenv(KEY_VARIABLE, "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    with Gallery(path, MODEL) as gallery:
        assert gallery.forget("Ada").complete
    monkeypatch.setenv(KEY_VARIABLE, "not base64!")
    with pytest.raises(DataError, match="base64"):
        Gallery(path, MODEL)


def test_encrypted_galleries_hold_no_plain_name_note_or_picture_digest(tmp_path):
    path, key = tmp_path / "g.db", AesGcm(b"k" * 32)
    secrets = ["Zebulon Quackenbush", "Žofie Nováková", "letter of the 3rd of May"]
    with Gallery(path, MODEL, create=True, seal=key) as gallery:
        gallery.enroll(secrets[0], unit(1), consent=secrets[2], pictures=[b"digest of a picture"])
        gallery.enroll_many([secrets[1], "Bob"], unit(2, 2), consent="asked")
        assert gallery.subject("Zebulon Quackenbush").consent == secrets[2]
        assert [s.name for s in gallery.subjects("quack")] == [secrets[0]]
        assert [s.name for s in gallery.subjects()] == ["Bob", *secrets[:2]]
        assert gallery.search(unit(1), top=1)[0][0].name == secrets[0]
        again = gallery.enroll(secrets[0], unit(1), pictures=[b"digest of a picture"])
        assert (again.added, again.already, again.subject.consent) == (0, 1, secrets[2])
        with pytest.raises(DataError, match="taken"):
            gallery.update("Bob", name=secrets[1])
        assert gallery.update("Bob", name="Robert Tables").name == "Robert Tables"
        gallery.merge(secrets[0], secrets[1])
        plain = [*secrets, "Robert Tables", "asked", "digest of a picture"]
        everything = b"".join(file.read_bytes() for file in gallery.store.files())
        assert not [text for text in plain if text.encode() in everything]
        receipt = gallery.forget(secrets[0])
        assert (receipt.complete, receipt.found) == (True, 0)
        assert [s.name for s in gallery.subjects()] == ["Robert Tables"]


def test_searching_goes_on_while_the_file_is_rewritten(gallery, monkeypatch):
    gallery.enroll_many([f"s{i}" for i in range(50)], unit(8, 50))
    connect, answers = gallery.store._connect, []

    class Slow:
        def __init__(self, db):
            self._db = db

        def execute(self, query):
            if query == "VACUUM":
                worker = threading.Thread(target=lambda: answers.append(gallery.search(unit(8, 50)[3], top=1)))
                worker.start()
                worker.join(20)
            return self._db.execute(query)

        def close(self):
            self._db.close()

    monkeypatch.setattr(gallery.store, "_connect", lambda: Slow(connect()))
    said = []
    assert gallery.forget("s7", "s8", progress=said.append).complete
    assert answers[0][0][0].name == "s3"
    assert [text.split()[0] for text in said] == ["rewriting", "searching"]


_ENROL_FOREVER = """
import sys, numpy as np
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
start = int(sys.argv[2])
gallery = Gallery(sys.argv[1], ModelIdentity("fake", 32, "a" * 64), create=True)
for i in range(start, start + 100000):
    gallery.enroll(f"s{i}", np.random.default_rng(i).standard_normal(32))
    if i % 3 == 2:
        gallery.forget(f"s{i - 1}")
    print(i, flush=True)
"""


def test_a_killed_process_loses_nothing_it_acknowledged(tmp_path):
    """SIGKILL at arbitrary moments of a loop of enrolments and erasures, ten times."""
    path, rng, said = tmp_path / "g.db", np.random.default_rng(5), -1
    for _ in range(10):
        command = [sys.executable, "-c", _ENROL_FOREVER, str(path), str(3 * (said // 3 + 2))]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert child.stdout is not None
        first = said = int(child.stdout.readline())
        time.sleep(rng.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        said = max([said, *(int(line) for line in child.stdout.read().split("\n")[:-1])])
        child.stdout.close()
        child.wait()
        with Gallery(path, MODEL) as gallery:
            gallery.store.verify()
            names = {s.name for s in gallery.subjects()}
            for i in range(first, said + 1):
                gone = i % 3 == 1 and i + 1 <= said
                undecided = i % 3 == 1 and i == said
                assert undecided or (f"s{i}" in names) != gone, i
            expected = np.random.default_rng(first).standard_normal(32).astype(np.float32)
            assert gallery.search(expected, top=1)[0][0].similarity == pytest.approx(1, abs=1e-6)


def test_files_lists_every_companion(gallery):
    gallery.enroll("Ada", unit(1))
    assert {Path(p).name for p in gallery.store.files()} == {"people.db", "people.db-wal", "people.db-shm"}
