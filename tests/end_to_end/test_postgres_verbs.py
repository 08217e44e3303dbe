"""The verbs over PostgreSQL: what a user types, where the password comes from, and one line for what is wrong."""

import gzip
import os
import subprocess
import sys

import numpy as np
import psycopg
import pytest
from paths import TESTS
from postgres_server import PostgresServer

from visavis.cli import main
from visavis.deploy.client import Client, ServiceError
from visavis.deploy.gallery.encryption import KEY_VARIABLE
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.opening import open_gallery
from visavis.deploy.gallery.postgres import PgGallery
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 8, "a" * 64)
OLD = TESTS / "deploy" / "gallery" / "old_galleries" / "postgres.sql.gz"


def run(capsys, *words):
    try:
        status = main([str(word) for word in words])
    except SystemExit as stop:  # argparse's own complaint
        status = stop.code
    said = capsys.readouterr()
    return status, said.out, said.err


def rows(seed, n=1):
    return np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32)


@pytest.fixture
def address(postgres, schema):
    return f"{postgres.dsn}&schema={schema}"


@pytest.fixture
def guarded(postgres):
    """The address of a role that must give a password, which is: hunter2."""
    access = postgres.data / "pg_hba.conf"
    before = access.read_text()
    access.write_text("local all guarded scram-sha-256\n" + before)
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS vector")  # an ordinary role may not
        admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'hunter2'")
        admin.execute("GRANT CREATE ON DATABASE postgres TO guarded")
        admin.execute("SELECT pg_reload_conf()")
        yield postgres.dsn.replace("visavis@", "guarded@")
        access.write_text(before)
        admin.execute("DROP OWNED BY guarded")
        admin.execute("DROP ROLE guarded")
        admin.execute("SELECT pg_reload_conf()")


def test_a_password_comes_from_the_environment_a_file_or_a_service(guarded, schema, tmp_path, monkeypatch):
    address = f"{guarded}&schema={schema}"
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "absent"))
    with pytest.raises(DataError, match="password"):
        PgGallery(address, MODEL, create=True)
    with monkeypatch.context() as environment:
        environment.setenv("PGPASSWORD", "hunter2")
        with PgGallery(address, MODEL, create=True) as gallery:
            gallery.enroll_many(["Ada", "Bob"], rows(1, 2))
            assert gallery.forget("Bob").complete
            gallery.store.verify()
        environment.setenv("PGPASSWORD", "hunter3")
        with pytest.raises(DataError) as caught:
            PgGallery(address, MODEL)
        assert "hunter" not in str(caught.value)
    (tmp_path / "pass").write_text("*:*:*:guarded:hunter2\n")
    (tmp_path / "pass").chmod(0o600)
    with monkeypatch.context() as environment:
        environment.setenv("PGPASSFILE", str(tmp_path / "pass"))
        with PgGallery(address) as gallery:
            assert len(gallery) == 1
    host = guarded.split("host=")[1]
    (tmp_path / "services").write_text(f"[faces]\nhost={host}\nuser=guarded\ndbname=postgres\npassword=hunter2\n")
    with monkeypatch.context() as environment:
        environment.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        with open_gallery(f"postgresql:///?service=faces&schema={schema}") as gallery:
            assert len(gallery) == 1


@pytest.mark.parametrize("verb", ["enroll", "identify", "forget", "gallery", "serve"])
def test_a_password_on_the_command_line_is_refused_by_every_verb(capsys, monkeypatch, tmp_path, verb):
    monkeypatch.setenv("VISAVIS_AUDIT", str(tmp_path / "audit"))
    address = "postgresql://ada:hunter2@127.0.0.1:1/faces"
    more = {"enroll": ["x.png", "--name", "Ada"], "identify": ["x.png"], "forget": ["Ada"], "gallery": ["list"]}
    status, out, err = run(capsys, verb, address, *more.get(verb, []))
    assert (status, out) == (2, "")
    assert "PGPASSWORD" in err
    assert len(err.splitlines()) == 1
    written = (tmp_path / "audit").read_text() if (tmp_path / "audit").exists() else ""
    assert "hunter2" not in out + err + written


def test_a_server_that_is_down_is_said_in_one_line(tmp_path):
    """Also by `serve`, and without a line from the pool."""
    address = f"postgresql://ada@/faces?host={tmp_path}"
    for words in (["gallery", address, "list"], ["forget", address, "Ada"], ["serve", address, "--port", "0"]):
        done = subprocess.run(
            [sys.executable, "-m", "visavis", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (2, ""), done
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "PostgreSQL cannot be reached" in done.stderr


def test_the_service_says_so_while_its_database_is_away_and_goes_on_when_it_is_back(start, recognizer, draw):
    server = PostgresServer()
    try:
        gallery = open_gallery(server.dsn, recognizer.identity, create=True)
        gallery.store.pool._pool.timeout = 1.0
        client = Client(start(gallery=gallery).url)
        red = draw.jpeg(draw.RED)
        assert client.enroll("Rosa", [red])["added"] == 1
        server.kill()
        for ask in (lambda: client.identify(red), lambda: client.enroll("Eve", [red]), client.subjects):
            with pytest.raises(ServiceError, match="503: the gallery's database cannot be reached; try again") as said:
                ask()
            assert str(server.root) not in str(said.value)
        server.start()
        gallery.store.pool._pool.timeout = 10.0
        assert client.identify(red)["faces"][0]["match"]["name"] == "Rosa"
        assert client.enroll("Blau", [draw.jpeg(draw.BLUE)])["added"] == 1
        client.close()
    finally:
        server.close()


def test_what_cannot_take_effect_is_refused(address, monkeypatch):
    for options, said in (({"precision": "int8"}, "float32"), ({"approximate": "cells"}, "graph")):
        with pytest.raises(DataError, match=said):
            open_gallery(address, MODEL, create=True, **options)
    with open_gallery(address, MODEL, create=True):
        pass
    with pytest.raises(DataError, match="made without a graph"):
        open_gallery(address, approximate="graph")
    monkeypatch.setenv(KEY_VARIABLE, "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    with pytest.raises(DataError, match=f"{KEY_VARIABLE} cannot take effect"):
        open_gallery(address)


def test_a_gallery_with_a_graph_is_made_and_searched(address):
    with open_gallery(address, MODEL, create=True, approximate="graph") as gallery:
        gallery.enroll_many([f"s{i}" for i in range(200)], rows(1, 200))
        assert gallery.approximate
        assert [found[0].name for found in gallery.search(rows(1, 200), top=3)] == [f"s{i}" for i in range(200)]
        assert len(gallery.search(rows(2), top=150)[0]) == 150
        near = rows(3)[0]
        gallery.enroll_many([f"over {i}" for i in range(300)], near + 0.01 * rows(4, 300))
        with gallery.store.write() as db:  # their time is over, and nobody has erased them yet
            db.execute("UPDATE subjects SET expires = 1.0 WHERE name LIKE 'over %'")
            gallery.rows.resum(db, "subjects", "name LIKE 'over %'")
            gallery.store.next_generation(db)
        assert len(gallery.search(near, top=5)[0]) == 5


def test_an_old_gallery_is_backed_up_and_migrated_by_one_command(capsys, postgres, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{postgres.programs}:{os.environ['PATH']}")
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS old WITH (FORCE)")
        admin.execute("CREATE DATABASE old TEMPLATE template0")
    database = postgres.dsn.replace("/postgres?", "/old?")
    with psycopg.connect(database) as fresh:
        fresh.execute("CREATE EXTENSION vector")
    dump = postgres.root / "old.sql"
    dump.write_bytes(gzip.decompress(OLD.read_bytes()))
    postgres.run("psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump), database)
    address = f"{database}&schema=old"
    status, _, err = run(capsys, "gallery", address, "list")
    assert status == 2
    command = err.strip().split("with: visavis ")[1].replace("BACKUP-FILE", str(tmp_path / "copy")).split()
    monkeypatch.setenv("PATH", "/nowhere")
    status, _, err = run(capsys, *command)
    assert (status, "pg_dump" in err) == (2, True), err
    monkeypatch.setenv("PATH", f"{postgres.programs}:/usr/bin")
    status, out, _ = run(capsys, *command)
    assert (status, "up to date; as it was" in out) == (0, True)
    assert (tmp_path / "copy").stat().st_size > 1000
    assert "24 subjects" in run(capsys, "gallery", address, "list")[1]
    assert "nothing was done" in run(capsys, *command)[1]
    assert run(capsys, "gallery", str(tmp_path / "g.db"), "migrate", str(tmp_path / "c"))[0] == 2


def test_backup_by_the_command_line(capsys, postgres, address, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{postgres.programs}:{os.environ['PATH']}")
    with open_gallery(address, MODEL, create=True) as gallery:
        gallery.enroll("Ada", rows(1))
    status, out, _ = run(capsys, "gallery", address, "backup", tmp_path / "copy")
    assert status == 0
    assert "pg_restore --dbname=DATABASE" in out
    status, _, err = run(capsys, "gallery", address, "backup", tmp_path / "copy" / "below a file")
    assert (status, len(err.splitlines())) == (2, 1)
