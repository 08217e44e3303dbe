"""Connections to PostgreSQL: many threads, several creators, a server that goes and comes, no password in a message."""

import numpy as np
import psycopg
import pytest
from postgres_server import PostgresServer

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.postgres_pool import PostgresPool
from visavis.deploy.gallery.records import StorageError
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 16, "a" * 64)


def unit(seed):
    row = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    return row / np.linalg.norm(row)


@pytest.fixture
def gallery(postgres, schema):
    with PgGallery(postgres.dsn, MODEL, schema=schema, create=True) as made:
        yield made


def test_a_schema_made_by_the_administrator_is_filled(postgres, schema):
    with psycopg.connect(postgres.dsn) as admin:
        admin.execute(f"CREATE SCHEMA {schema}")
    with PgGallery(postgres.dsn, MODEL, schema=schema, create=True) as gallery:
        assert gallery.enroll("Ada", unit(1)).added == 1


def test_the_extension_may_live_in_a_schema_of_its_own(postgres):
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS tidy WITH (FORCE)")
        admin.execute("CREATE DATABASE tidy TEMPLATE template0")
    address = postgres.dsn.replace("/postgres?", "/tidy?")
    with psycopg.connect(address) as admin:
        admin.execute("CREATE SCHEMA extensions")
        admin.execute("CREATE EXTENSION vector SCHEMA extensions")
    with PgGallery(address, MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1))
        assert gallery.search(unit(1), top=1)[0][0].name == "Ada"


def test_the_extension_is_not_put_into_a_gallery(postgres):
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS tidy WITH (FORCE)")
        admin.execute("CREATE DATABASE tidy TEMPLATE template0")
    address = postgres.dsn.replace("/postgres?", "/tidy?")
    with psycopg.connect(address) as admin:
        admin.execute("CREATE SCHEMA visavis")
    for schema in ("visavis", "other"):
        with PgGallery(address, MODEL, schema=schema, create=True) as gallery:
            assert gallery.enroll("Ada", unit(1)).added == 1


def test_a_dropped_connection_is_replaced(gallery, postgres):
    gallery.enroll("Ada", unit(1))
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'visavis'")
    assert gallery.search(unit(1), top=1)[0][0].name == "Ada"
    assert gallery.enroll("Bob", unit(2)).added == 1


def lose(db, postgres):
    """Let the administrator end the connection a transaction runs on."""
    pid = db.execute("SELECT pg_backend_pid()").fetchone()[0]
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (pid,))


def test_a_connection_lost_in_the_middle_keeps_nothing_and_the_next_change_works(gallery, postgres):
    def change():
        with gallery._writing() as db:
            db.execute("INSERT INTO settings VALUES ('probe', '1', 0)")
            lose(db, postgres)
            db.execute("SELECT 1")

    with pytest.raises(StorageError, match="cannot be reached"):
        change()
    with gallery._reading() as db:
        assert db.execute("SELECT count(*) FROM settings WHERE key = 'probe'").fetchone()[0] == 0
    assert gallery.enroll("Bob", unit(2)).added == 1


def test_a_connection_lost_while_a_change_is_kept_is_said_to_be_undecided(gallery, postgres):
    def change():
        with gallery._writing() as db:
            db.execute("INSERT INTO settings VALUES ('probe', '1', 0)")
            lose(db, postgres)

    with pytest.raises(StorageError, match="whether it did cannot be told"):
        change()


def test_a_server_lost_after_the_deletion_does_not_call_it_undone(schema, monkeypatch):
    """Found by the torture: an error after the commit told its caller that nobody was forgotten."""
    server = PostgresServer()
    try:
        with PgGallery(server.dsn, MODEL, schema=schema, create=True) as gallery:
            gallery.store.pool._pool.timeout = 0.5
            gallery.enroll_many(["Ada", "Bob"], np.stack([unit(1), unit(2)]))
            finish = gallery._finish

            def late(*given):
                server.kill()
                return finish(*given)

            monkeypatch.setattr(gallery, "_finish", late)
            receipt = gallery.forget("Ada")
            assert (receipt.subjects, receipt.samples, receipt.complete) == (1, 1, False)
            assert receipt.note.startswith("deleted, but")
            server.start()
            gallery.store.pool._pool.timeout = 10.0
            assert [s.name for s in gallery.subjects()] == ["Bob"]
            assert gallery.store.scrub()
    finally:
        server.close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("53100", "disk is full; nothing"),
        ("25006", "accepts no writes"),
        ("55P03", "try again"),
        ("42501", "not allow"),
    ],
)
def test_what_the_server_refuses_in_the_middle_is_explained_and_nothing_is_kept(gallery, code, said):
    gallery.enroll("Ada", unit(1))
    with gallery._writing() as db:
        db.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more' "
            f"USING ERRCODE = '{code}'; END $$"
        )
        db.execute("CREATE TRIGGER refuse BEFORE INSERT ON samples FOR EACH ROW EXECUTE FUNCTION refuse()")
    for change in (lambda: gallery.enroll("Bob", unit(2)), lambda: gallery.enroll("Ada", unit(3))):
        with pytest.raises(StorageError, match=said) as caught:
            change()
        assert "\n" not in str(caught.value)
    assert [(s.name, s.samples) for s in gallery.subjects()] == [("Ada", 1)]
    gallery.store.verify()


def test_a_server_that_goes_and_comes_is_found_again(schema):
    """While it is away each call says so in one line; after a crash everything acknowledged is there."""
    server = PostgresServer()
    try:
        with PgGallery(server.dsn, MODEL, schema=schema, create=True) as gallery:
            gallery.store.pool._pool.timeout = 1.0
            gallery.enroll("Ada", unit(1))
            server.kill()
            with pytest.raises(StorageError, match="cannot be reached") as caught:
                gallery.enroll("Bob", unit(2))
            assert "\n" not in str(caught.value)
            with pytest.raises(StorageError, match="cannot be reached"):
                PgGallery(server.dsn, MODEL, schema=schema)
            server.start()
            gallery.store.pool._pool.timeout = 10.0
            assert gallery.search(unit(1), top=1)[0][0].name == "Ada"
            assert gallery.enroll("Bob", unit(2)).added == 1
    finally:
        server.close()


def test_a_receipt_is_not_complete_while_somebody_still_sees_the_rows(gallery, postgres, schema):
    gallery.enroll("Ada", unit(1))
    gallery.enroll("Bob", unit(2))
    gallery.store.wait = 0.2
    with psycopg.connect(postgres.dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1").fetchone()
        receipt = gallery.forget("Ada")
        assert (receipt.subjects, receipt.found, receipt.complete) == (1, 0, False)
        assert "still sees them" in receipt.note
    gallery.store.wait = 30.0
    assert gallery.forget("Bob").complete
    with psycopg.connect(postgres.dsn) as reader:  # holds the table itself: the rewriting cannot begin
        reader.execute(f"LOCK TABLE {schema}.samples IN ACCESS SHARE MODE")
        gallery.store.wait = 0.2
        gallery.enroll("Cy", unit(3))
        receipt = gallery.forget("Cy")
        assert not receipt.complete


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ada:hunter2/x@127.0.0.1/faces",
        "postgresql://ada:hunter2@x@127.0.0.1/faces",
        "postgresql://ada:h:hunter2@127.0.0.1/faces",
        "postgresql://ada:hunter2?x@127.0.0.1/faces",
        "postgresql://ada:hunter2@127.0.0.1:notaport/faces",
        "postgresql://ada:hunter2@127.0.0.1:1/faces",
        "postgresql://127.0.0.1:1/faces?user=ada&password=hunter2",
        "postgresql://ada:hunter2%zz@127.0.0.1:1/faces",
        "host=127.0.0.1 port=1 password=hunter2 user='",
    ],
)
def test_no_error_repeats_a_password(address):
    with pytest.raises((DataError, StorageError)) as caught:
        PgGallery(address, MODEL)
    chain, error = [], caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert "hunter2" not in " ".join(chain)
    assert "\n" not in str(caught.value)


def test_a_pool_turned_away_for_want_of_connections_says_so(postgres):
    pool = PostgresPool(postgres.dsn, "public", name="g", size=1)
    pool._pool.timeout = 0.2
    try:
        with pool.transaction() as db:
            db.execute("SELECT 1")
            with pytest.raises(StorageError, match="get a connection"), pool.transaction():
                pass
    finally:
        pool.close()
