"""Galleries made by the program of commit 6250fda: opened, migrated, and closed to that program afterwards."""

import base64
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT

from visavis.deploy.gallery.encryption import KEY_VARIABLE, AesGcm, NoCipher
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.unknowns import read_unknowns
from visavis.errors import DataError

HERE = Path(__file__).parent / "old_galleries"
MODEL = ModelIdentity("fake", 8, "a" * 64)
KEY = b"k" * 32
SEALS = {"plain": NoCipher(), "sealed": AesGcm(KEY)}
ANSWERS = json.loads((HERE / "answers.json").read_text(encoding="utf-8"))


def rows(seed, n=1):
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)


@pytest.fixture(params=["plain", "sealed"])
def kind(request):
    return request.param


@pytest.fixture
def old(tmp_path, kind):
    path = tmp_path / "g.db"
    path.write_bytes(gzip.decompress((HERE / f"{kind}.db.gz").read_bytes()))
    return path


def assert_answers_as_before(gallery, kind):
    said = ANSWERS[kind]
    assert [vars(s) for s in gallery.subjects()] == said["subjects"]
    crops = {s.name: gallery.crop(s.id) for s in gallery.subjects()}
    assert {n: base64.b64encode(c).decode() for n, c in crops.items() if c} == said["crops"]
    assert gallery.retention_days == said["retention_days"]
    for found, before in zip(gallery.search(rows(9, 6), top=4), said["search"], strict=True):
        assert [(c.id, c.name) for c in found] == [(c["id"], c["name"]) for c in before]
        assert [c.similarity for c in found] == pytest.approx([c["similarity"] for c in before], abs=1e-6)
    ids, vectors = read_unknowns(gallery)
    assert ids == said["unknowns"]["ids"]
    kept = np.array(said["unknowns"]["vectors"], np.float32)  # as they were stored; they are read as unit vectors
    np.testing.assert_allclose(vectors, kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-7)


def test_it_answers_as_it_did_and_the_old_state_stays_beside(old, kind):
    before = old.read_bytes()
    with Gallery(old, MODEL, cipher=SEALS[kind]) as gallery:
        assert gallery.store.version == 3
        assert_answers_as_before(gallery, kind)
        gallery.store.verify()
        assert gallery.enroll("Ada", rows(1), images=[b"p2"]).already == 1
        fresh = gallery.enroll("Eve", rows(20)).subject
        assert fresh.id == 27  # 26 subjects were there, one of them erased last of its time
    copy = old.with_name("g.db.format-2.backup")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert not old.with_name("g.db.format-2.backup.part").exists()
    with sqlite3.connect(copy) as db, sqlite3.connect(":memory:") as first:
        first.deserialize(before[:18] + b"\1\1" + before[20:])  # without its log
        assert list(db.iterdump()) == list(first.iterdump())
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    db.close()
    first.close()


def test_two_that_differ_by_a_character_nobody_sees_are_told_apart_by_number(old, kind, caplog):
    with Gallery(old, MODEL, cipher=SEALS[kind]) as gallery:
        assert "subject 6 bears the name of another" in caplog.text
        assert gallery.subject("Ada").id == gallery.subject("Ada\u200b").id == 1
        assert gallery.update(6, name="Ada the second").id == 6


def test_opened_for_reading_only_it_says_what_to_type(old, kind):
    before = old.read_bytes()
    with pytest.raises(DataError, match=r"format 2.*type: visavis gallery .* check"):
        Gallery(old, MODEL, cipher=SEALS[kind], read_only=True)
    assert old.read_bytes() == before


def test_format_1_of_a_sealed_gallery_becomes_wholly_encrypted(tmp_path):
    path = tmp_path / "g.db"
    path.write_bytes(gzip.decompress((HERE / "sealed.db.gz").read_bytes()))
    said = {s["id"]: s for s in ANSWERS["sealed"]["subjects"]}
    db = sqlite3.connect(path, isolation_level=None)  # format 1: names, notes and digests plain, vectors sealed
    for number, subject in said.items():
        db.execute(
            "UPDATE subjects SET name = ?, consent = ? WHERE id = ?", (subject["name"], subject["consent"], number)
        )
    db.execute("UPDATE samples SET picture = CAST('digest of ' || id AS BLOB) WHERE picture IS NOT NULL")
    db.execute("ALTER TABLE subjects DROP COLUMN title")
    db.execute("PRAGMA user_version = 1")
    db.close()
    assert "Bóra".encode() in path.read_bytes()
    with Gallery(path, MODEL, cipher=SEALS["sealed"]) as gallery:
        assert_answers_as_before(gallery, "sealed")
        everything = b"".join(file.read_bytes() for file in gallery.store.files())
        assert not [t for t in ("Bóra", "signed form 7", "digest of") if t.encode() in everything]


OLD_WRITES = (
    "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'",
    "INSERT INTO subjects (name, title, consent, created, expires, changed) VALUES ('x', NULL, '', 1.0, NULL, 1)",
    "INSERT INTO samples (subject, vector, weight, picture, crop, created) VALUES (1, x'00', 1.0, NULL, NULL, 1.0)",
    "INSERT INTO unknowns (vector, created) VALUES (x'00', 1.0)",
    "DELETE FROM unknowns",
)


def test_a_connection_that_was_open_before_writes_nothing_afterwards(old, kind):
    earlier = sqlite3.connect(old, isolation_level=None)
    assert earlier.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    with Gallery(old, MODEL, cipher=SEALS[kind]) as gallery:
        for statement in OLD_WRITES:
            with pytest.raises(sqlite3.Error):
                earlier.execute(statement)
        earlier.close()
        gallery.store.verify()
        assert_answers_as_before(gallery, kind)


@pytest.fixture(scope="session")
def old_program(tmp_path_factory):
    """The sources of commit 6250fda, where the repository's history is at hand."""
    place = tmp_path_factory.mktemp("program")
    found = subprocess.run(["git", "-C", str(ROOT), "archive", "6250fda", "src"], capture_output=True, check=False)
    if found.returncode or not shutil.which("tar"):
        pytest.skip("the history of the repository is not at hand")
    subprocess.run(["tar", "-x", "-C", str(place)], input=found.stdout, check=True)
    return place / "src"


_OLD = """
import sys
from visavis.deploy.binding import ModelIdentity
from visavis.deploy.gallery import Gallery
from visavis.deploy.unknowns import drop_unknowns, keep_unknowns
from visavis.errors import DataError
def refused(task):
    try: task()
    except DataError as error: print("refused", str(error).splitlines()[0], flush=True)
    else: print("done", flush=True)
model = ModelIdentity("fake", 8, "a" * 64)
if sys.argv[2] == "opens":
    refused(lambda: Gallery(sys.argv[1], model))
else:
    gallery = Gallery(sys.argv[1], model)
    print("open", flush=True)
    sys.stdin.readline()
    face = [1.0] * 8
    for task in (lambda: gallery.enroll("Ada", face), lambda: gallery.forget("Ada"), lambda: gallery.search(face),
                 lambda: gallery.update("Ada", name="Eve"), lambda: gallery.merge("Ada", "Daniel"), gallery.sweep,
                 lambda: keep_unknowns(gallery, [face]), lambda: drop_unknowns(gallery)):
        refused(task)
"""


def test_the_old_program_is_refused_and_never_writes(old, kind, old_program):
    environment = {**os.environ, "PYTHONPATH": str(old_program), "OMP_NUM_THREADS": "1"}
    if kind == "sealed":
        environment[KEY_VARIABLE] = base64.b64encode(KEY).decode()
    still = subprocess.Popen(
        [sys.executable, "-c", _OLD, str(old), "stays"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert still.stdout is not None
    assert still.stdout.readline() == "open\n"
    with Gallery(old, MODEL, cipher=SEALS[kind]) as gallery:
        assert_answers_as_before(gallery, kind)
    said = still.communicate("go\n", timeout=60)[0].splitlines()
    assert [line.split()[0] for line in said] == ["refused"] * 5 + ["done"] + ["refused"] * 2, said  # nobody to sweep
    before = old.read_bytes()
    opened = subprocess.run(
        [sys.executable, "-c", _OLD, str(old), "opens"], capture_output=True, text=True, env=environment, check=True
    )
    assert "gallery format 3, this program reads 2; update visavis" in opened.stdout
    assert old.read_bytes() == before
    with Gallery(old, MODEL, cipher=SEALS[kind]) as gallery:
        gallery.store.verify()
        assert_answers_as_before(gallery, kind)


_MIGRATE = """
import os, signal, sys
from visavis.deploy.gallery import migration
from visavis.deploy.gallery import sqlite_file as store
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
def die_after(module, name):
    task = getattr(module, name)
    def patched(*args, **options):
        task(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, patched)
def die_before(module, name):
    setattr(module, name, lambda *args, **options: os.kill(os.getpid(), signal.SIGKILL))
{"copying": lambda: die_before(store, "sync_folder"), "copied": lambda: die_after(store.Store, "backup"),
 "subjects": lambda: die_after(migration, "_subjects"), "samples": lambda: die_after(migration, "_samples"),
 "before the end": lambda: die_after(migration, "_to_format_3"),
 "before rewriting": lambda: die_before(store.Store, "scrub")}[sys.argv[2]]()
Gallery(sys.argv[1], ModelIdentity("fake", 8, "a" * 64))
"""


@pytest.mark.parametrize("moment", ["copying", "copied", "subjects", "samples", "before the end", "before rewriting"])
def test_killed_at_any_moment_it_goes_on_from_there(old, kind, moment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if kind == "sealed":
        environment[KEY_VARIABLE] = base64.b64encode(KEY).decode()
    child = subprocess.run(
        [sys.executable, "-c", _MIGRATE, str(old), moment], capture_output=True, text=True, env=environment, check=False
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    db = sqlite3.connect(old)
    assert db.execute("PRAGMA user_version").fetchone()[0] == (3 if moment == "before rewriting" else 2)
    db.close()
    with Gallery(old, MODEL, cipher=SEALS[kind]) as gallery:
        gallery.store.verify()
        assert_answers_as_before(gallery, kind)
    with sqlite3.connect(old.with_name("g.db.format-2.backup")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM samples").fetchone() == (29,)
    copy.close()
