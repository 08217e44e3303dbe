"""The gallery in PostgreSQL gives the answers of the one in SQLite, on a real server."""

import time
import uuid

import numpy as np
import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.records import StorageError, UnknownSubject
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError

MODEL = ModelIdentity("fake", 16, "a" * 64)


@pytest.fixture
def dsn(postgres):
    return postgres.dsn


@pytest.fixture(params=[False, True], ids=["exact", "hnsw"])
def both(request, dsn, tmp_path):
    """The same gallery twice: in the file, and in the server."""
    schema = f"t{uuid.uuid4().hex[:12]}"
    with (
        Gallery(tmp_path / "g.db", MODEL, create=True) as file,
        PgGallery(dsn, MODEL, schema=schema, create=True, approximate=request.param) as server,
    ):
        yield file, server, schema


def units(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_both_give_the_same_answers(both):
    file, server, _ = both
    for gallery in (file, server):
        gallery.enroll_many([f"s{i}" for i in range(80)], units(1, 80))
        gallery.enroll(
            "Zoé 'quoted' %s", units(2, 3), weights=[0.2, 1, 0.4], pictures=[b"1", b"2", b"1"], consent="form"
        )
        gallery.enroll("s3", units(3), crops=[b"crop"])
        gallery.merge("s5", "s6", "s7")
        gallery.update("s8", name="acht", retention_days=5)
    probes = np.concatenate([units(1, 10), units(9, 10)])
    for a, b in zip(
        file.identify(probes, threshold=0.8, fmr=1e-3, top=4),
        server.identify(probes, threshold=0.8, fmr=1e-3, top=4),
        strict=True,
    ):
        assert [c.name for c in a.candidates] == [c.name for c in b.candidates]
        np.testing.assert_allclose(
            [c.similarity for c in a.candidates], [c.similarity for c in b.candidates], atol=2e-6
        )
        assert (a.match and a.match.name, a.fpir, a.searched) == (b.match and b.match.name, b.fpir, b.searched)
    for a, b in zip(file.subjects(), server.subjects(), strict=True):
        assert (a.name, a.samples, a.consent) == (b.name, b.samples, b.consent)
    assert server.crop("s3") == b"crop"
    assert [s.name for s in server.subjects("ZOÉ")] == ["Zoé 'quoted' %s"]


def test_forgetting_and_retention(both):
    _, server, _ = both
    server.enroll("Ada", units(1, 2))
    server.enroll("Bob", units(2))
    receipt = server.forget("Ada")
    assert (receipt.subjects, receipt.samples, receipt.found, receipt.complete) == (1, 2, 0, True)
    assert "administrator" in receipt.note
    with pytest.raises(UnknownSubject):
        server.forget("Ada")
    server.enroll("Cy", units(3), retention_days=0.1 / 86_400)
    time.sleep(0.15)
    assert [c.name for c in server.search(units(3), top=5)[0]] == ["Bob"]
    assert server.sweep().subjects == 1


def test_a_second_connection_sees_it_and_another_model_is_refused(both, dsn):
    _, server, schema = both
    server.enroll("Ada", units(1))
    with PgGallery(dsn, MODEL, schema=schema) as other:
        assert other.search(units(1), top=1)[0][0].name == "Ada"
    with pytest.raises(DataError, match="belongs to the model 'fake'"):
        PgGallery(dsn, ModelIdentity("other", 16, "b" * 64), schema=schema)
    with pytest.raises(DataError, match="no such gallery"):
        PgGallery(dsn, MODEL, schema="absent")
    for wrong in (np.ones((1, 17)), np.full((1, 16), np.nan)):
        with pytest.raises(DataError):
            server.enroll("Bob", wrong)
    server.enroll("Bob", units(2))
    with pytest.raises(DataError, match="taken"):
        server.update("Bob", name="Ada")


def test_a_server_that_is_not_there_is_said():
    with pytest.raises(StorageError, match="cannot be reached"):
        PgGallery("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2", MODEL)
