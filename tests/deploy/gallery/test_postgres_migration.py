"""The gallery in PostgreSQL of commit 6250fda: refused until migrated, then the same; that program is shut out."""

import base64
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psycopg
import pytest
from paths import ROOT

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery, open_pool
from visavis.deploy.gallery.postgres_migration import migrate
from visavis.errors import DataError

HERE = Path(__file__).parent / "old_galleries"
MODEL = ModelIdentity("fake", 8, "a" * 64)
SAID = json.loads((HERE / "postgres.json").read_text(encoding="utf-8"))


def rows(seed, n=1):
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)


@pytest.fixture
def old(postgres):
    """The address of a database of its own with the old gallery in it."""
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS old WITH (FORCE)")
        admin.execute("CREATE DATABASE old TEMPLATE template0")
    address = postgres.dsn.replace("/postgres?", "/old?")
    with psycopg.connect(address) as fresh:
        fresh.execute("CREATE EXTENSION vector")
    dump = postgres.root / "old.sql"
    dump.write_bytes(gzip.decompress((HERE / "postgres.sql.gz").read_bytes()))
    postgres.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump), address)
    return f"{address}&schema=old"


def migrated(address):
    pool, schema = open_pool(address, None)
    try:
        return migrate(pool, schema)
    finally:
        pool.close()


def assert_answers_as_before(gallery):
    assert [vars(s) for s in gallery.subjects()] == SAID["subjects"]
    crops = {s.name: gallery.crop(s.id) for s in gallery.subjects()}
    assert {n: base64.b64encode(c).decode() for n, c in crops.items() if c} == SAID["crops"]
    assert gallery.retention_days == SAID["retention_days"]
    for found, before in zip(gallery.search(rows(9, 6), top=4), SAID["search"], strict=True):
        assert [(c.id, c.name) for c in found] == [(c["id"], c["name"]) for c in before]
        assert [c.similarity for c in found] == pytest.approx([c["similarity"] for c in before], abs=1e-6)


def test_it_is_refused_with_the_command_that_backs_up_and_migrates(old):
    with pytest.raises(DataError, match=r"format 1, this program reads 2.*visavis gallery \S+ migrate BACKUP-FILE"):
        PgGallery(old, MODEL)
    with pytest.raises(DataError, match="format 1"):
        PgGallery(old, MODEL, create=True)


def test_migrated_it_answers_as_it_did(old, caplog):
    assert migrated(old)
    assert not migrated(old)
    assert "subject 6 bears the name of another" in caplog.text
    with PgGallery(old, MODEL) as gallery:
        assert_answers_as_before(gallery)
        assert gallery.enroll("Ada", rows(1), images=[b"p2"]).already == 1
        assert gallery.subject("Ada\u200b").id == 1
        assert gallery.update(6, name="Ada the second").id == 6
        assert gallery.enroll("Eve", rows(20)).subject.id == max(s["id"] for s in SAID["subjects"]) + 1
        assert gallery.forget("Daniel").complete
    with psycopg.connect(old.split("&schema")[0]) as db:
        assert db.execute("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%hnsw%'").fetchone() == (1,)


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
import sys, importlib
named = lambda module: importlib.import_module("visavis.deploy." + module)
ModelIdentity, PgGallery = named("binding").ModelIdentity, named("pgvector").PgGallery
from visavis.errors import DataError
def refused(task):
    try: task()
    except DataError as error: print("refused", str(error).splitlines()[0], flush=True)
    else: print("done", flush=True)
model = ModelIdentity("fake", 8, "a" * 64)
gallery = PgGallery(sys.argv[1], model, schema="old")
print("open", flush=True)
sys.stdin.readline()
face = [1.0] * 8
for task in (lambda: gallery.enroll("Ada", face), lambda: gallery.forget("Ada"), lambda: gallery.search(face),
             lambda: gallery.update("Bóra 王", name="Eve"), lambda: gallery.merge("Bóra 王", "Daniel"),
             lambda: gallery.update("Bóra 王", retention_days=1.0),
             lambda: PgGallery(sys.argv[1], model, schema="old"),
             lambda: PgGallery(sys.argv[1], model, schema="old", create=True)):
    refused(task)
"""


def test_the_old_program_is_refused_and_never_writes(old, old_program):
    environment = {**os.environ, "PYTHONPATH": str(old_program), "OMP_NUM_THREADS": "1"}
    still = subprocess.Popen(
        [sys.executable, "-c", _OLD, old.split("&schema")[0]],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert still.stdout is not None
    assert still.stdout.readline() == "open\n"
    assert migrated(old)
    said = still.communicate("go\n", timeout=60)[0].splitlines()
    assert [line.split()[0] for line in said] == ["refused"] * 8, said
    assert "this gallery has format 2, your program another; update visavis" in said[-2]
    with PgGallery(old, MODEL) as gallery:
        assert_answers_as_before(gallery)


_DIE = """
import os, signal, sys
from visavis.deploy.gallery import postgres_migration as module
from visavis.deploy.gallery.postgres import open_pool
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
setattr(module, sys.argv[2], die)
module.migrate(*open_pool(sys.argv[1], None))
"""


@pytest.mark.parametrize("moment", ["_subjects", "_samples", "write_derived"])
def test_killed_in_the_middle_it_is_of_its_old_format_and_goes_on(old, moment):
    child = subprocess.run(
        [sys.executable, "-c", _DIE, old, moment], capture_output=True, text=True, check=False, env=os.environ
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    with pytest.raises(DataError, match="format 1"):
        PgGallery(old, MODEL)
    assert migrated(old)
    with PgGallery(old, MODEL) as gallery:
        assert_answers_as_before(gallery)


def test_a_gallery_of_a_later_format_is_refused(old):
    migrated(old)
    with psycopg.connect(old.split("&schema")[0]) as db:
        db.execute("SET visavis.format = '2'")
        db.execute("UPDATE old.settings SET value = '3' WHERE key = 'format'")
    with pytest.raises(DataError, match="gallery format 3, this program reads 2; update visavis"):
        PgGallery(old, MODEL)


def test_rows_are_not_changed_behind_the_program(old):
    migrated(old)
    with psycopg.connect(old.split("&schema")[0]) as db, pytest.raises(psycopg.Error, match="update visavis"):
        db.execute("DELETE FROM old.samples")
