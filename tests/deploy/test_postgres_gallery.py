"""The gallery in PostgreSQL gives the answers of the one in SQLite, on a real server."""

import numpy as np
import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.records import StorageError
from visavis.deploy.gallery.sqlite import Gallery

MODEL = ModelIdentity("fake", 16, "a" * 64)


@pytest.fixture
def dsn(postgres):
    return postgres.dsn


@pytest.fixture(params=[False, True], ids=["exact", "hnsw"])
def both(request, dsn, schema, tmp_path):
    """The same gallery twice: in the file, and in the server."""
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


def test_a_server_that_is_not_there_is_said():
    with pytest.raises(StorageError, match="cannot be reached"):
        PgGallery("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2", MODEL)
