"""The gallery in PostgreSQL gives the answers of the one in SQLite, on a real server."""

import numpy as np
import pytest

from visavis.deploy.gallery.exchange import export_gallery, import_gallery
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.postgres import PgGallery
from visavis.deploy.gallery.records import SourceFile, StorageError
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.unknowns import keep_unknowns

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
        gallery.enroll("Zoé 'quoted' %s", units(2, 3), weights=[0.2, 1, 0.4], images=[b"1", b"2", b"1"], consent="form")
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


def test_a_file_moves_into_the_server_and_back_by_export_and_import(both, tmp_path):
    file, server, _ = both
    source = SourceFile(b"\x07" * 32, "holiday/1.jpg")
    file.enroll("Zoé", units(2, 3), weights=[0.2, 1, 0.4], images=[b"1", None, b"2"], sources=[source, None, None])
    file.enroll("Ada", units(3, 2), crops=[b"crop", None], consent="form 7", retention_days=9)
    file.enroll("gone", units(4))
    file.enroll_many([f"s{i}" for i in range(30)], units(5, 30))
    file.forget("gone")
    file.merge("s3", "s4")
    keep_unknowns(file, list(units(6, 2)))
    export_gallery(file, tmp_path / "first.npz")
    import_gallery(server, tmp_path / "first.npz")
    server.store.verify()
    assert content(server) == content(file)
    export_gallery(server, tmp_path / "second.npz")
    with Gallery(tmp_path / "back.db", MODEL, create=True) as back:
        import_gallery(back, tmp_path / "second.npz")
        assert content(back) == content(file)
    again = import_gallery(server, tmp_path / "first.npz")
    assert (again.subjects, again.samples, again.unknown_faces) == (0, 0, 0)
    assert content(server) == content(file)


def content(gallery):
    """Every column but those that count changes."""
    with gallery.store.read() as db:
        return {
            table: db.execute(f"SELECT {names} FROM {table} ORDER BY id").fetchall()
            for table, names in (
                ("subjects", "id, key, name, consent, created, expires"),
                (
                    "samples",
                    "id, subject, template, vector, weight, quality, picture, source, source_name, created, "
                    "crop_checksum, crop",
                ),
                ("unknown_faces", "id, vector, quality, picture, source, source_name, created, crop"),
            )
        }
