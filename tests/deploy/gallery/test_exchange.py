"""Export and import, backup: what comes back is the gallery that was."""

import json
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import AesGcm, NoCipher
from visavis.deploy.gallery.exchange import export_gallery, import_gallery, model_of_export
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import SourceFile
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.unknowns import keep_unknowns
from visavis.errors import DataError

DIM = 16
MODEL = ModelIdentity("fake", DIM, "a" * 64)
CIPHERS = {"plain": NoCipher(), "sealed": AesGcm(b"k" * 32), "sealed otherwise": AesGcm(b"o" * 32)}


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fill(gallery):
    rng = np.random.default_rng(0)
    for i in range(600):
        source = SourceFile(bytes([i % 251]) * 32, f"photo {i}.jpg") if i % 3 else None
        gallery.enroll(
            f"person {i} 王", unit(i, 2), weights=[0.5, 1], images=[b"%032d" % i, None], crops=[rng.bytes(90), None],
            sources=[source, None], consent="asked" if i % 2 else "", retention_days=50 if i % 5 == 0 else None,
        )  # fmt: skip
    gallery.forget("person 3 王")
    gallery.merge("person 7 王", "person 4 王")
    keep_unknowns(gallery, list(unit(-1 & 0xFFFF, 3)))


def content(gallery):
    """Everything a gallery holds, decrypted, without what counts changes."""
    rows = gallery.rows
    with gallery.store.read() as db:
        subjects = [
            (i, rows.text(name, "subjects", "name", i), rows.text(note, "subjects", "consent", i), created, end)
            for i, name, note, created, end in db.execute("SELECT id, name, consent, created, expires FROM subjects")
        ]
        samples = {}
        for table, more in (("samples", "subject, template, weight"), ("unknown_faces", "0, 0, 0")):
            query = f"SELECT id, vector, crop, source_name, picture, source, quality, created, {more} FROM {table}"
            samples[table] = [
                (
                    i, rows.decrypt(vector, table, "vector", i), crop and rows.decrypt(crop, table, "crop", i),
                    rows.text(name, table, "source_name", i), rows.plain_digest(image), rows.plain_digest(source),
                    *rest,
                )
                for i, vector, crop, name, image, source, *rest in db.execute(query)
            ]  # fmt: skip
    return sorted(subjects), sorted(samples["samples"]), sorted(samples["unknown_faces"])


@pytest.fixture(scope="module", params=["plain", "sealed"])
def exported(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("exported")
    with Gallery(place / "g.db", MODEL, create=True, cipher=CIPHERS[request.param], retention_days=900) as gallery:
        fill(gallery)
        export_gallery(gallery, place / "e.npz")
        yield place / "e.npz", gallery, content(gallery)


@pytest.mark.parametrize("into", CIPHERS)
def test_a_fresh_gallery_becomes_the_same_and_a_second_import_adds_nothing(exported, tmp_path, into):
    file, original, before = exported
    assert file.stat().st_mode & 0o777 == 0o600
    model, days = model_of_export(file)
    assert (model, days) == (MODEL, 900)
    with Gallery(tmp_path / "g.db", model, create=True, cipher=CIPHERS[into], retention_days=days) as fresh:
        done = import_gallery(fresh, file)
        assert (done.subjects, done.samples, done.already, done.unknown_faces) == (598, 1198, 0, 3)
        assert content(fresh) == before
        fresh.store.verify()
        generation = fresh.store.settings()["generation"]
        again = import_gallery(fresh, file)
        assert (again.subjects, again.samples, again.already, again.unknown_faces) == (0, 0, 1201, 0)
        assert content(fresh) == before
        assert fresh.store.settings()["generation"] == generation
        assert fresh.enroll("person 9 王", unit(5000), images=[b"%032d" % 9]).already == 1
        assert fresh.search(unit(17, 2)[1], top=1)[0][0].name == "person 17 王"
        assert fresh.known_sources("person 8 王", [SourceFile(bytes([8]) * 32, "another name")]) == [True]
    into_itself = import_gallery(original, file)
    assert (into_itself.subjects, into_itself.samples, into_itself.unknown_faces) == (0, 0, 0)
    assert content(original) == before


def test_an_import_that_was_killed_is_finished_by_the_next(exported, tmp_path):
    file, _, before = exported
    code = """
import os, signal, sys
from visavis.deploy.gallery import exchange
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
subjects, calls = exchange._Importer.subjects, []
def dying(*arguments):
    calls.append(subjects(*arguments))
    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)
exchange._Importer.subjects, exchange._BATCH = dying, 200
gallery = Gallery(sys.argv[1], ModelIdentity("fake", 16, "a" * 64), create=True)
exchange.import_gallery(gallery, sys.argv[2])
"""
    path = tmp_path / "g.db"
    subprocess.run([sys.executable, "-c", code, str(path), str(file)], env={**os.environ}, check=False)
    with Gallery(path, MODEL) as gallery:
        assert len(gallery) == 400
        import_gallery(gallery, file)
        unnumbered = [[row[1:] for row in table] for table in content(gallery)[:2]]
        assert sorted(row[0] for row in unnumbered[0]) == sorted(row[1] for row in before[0])
        assert sorted(row[0] for row in unnumbered[1]) == sorted(row[1] for row in before[1])


def test_those_whose_time_is_over_do_not_come_back(tmp_path):
    with Gallery(tmp_path / "g.db", MODEL, create=True) as gallery:
        gallery.enroll("Ada", unit(1), retention_days=0.3 / 86_400)
        gallery.enroll("Bob", unit(2))
        export_gallery(gallery, tmp_path / "e.npz")
    time.sleep(0.35)
    with Gallery(tmp_path / "h.db", MODEL, create=True) as fresh:
        done = import_gallery(fresh, tmp_path / "e.npz")
        assert (done.subjects, done.expired) == (1, 1)
        assert [s.name for s in fresh.subjects()] == ["Bob"]


def test_the_first_format_is_read(tmp_path):
    vectors = unit(1, 3)
    np.savez(
        tmp_path / "e.npz", about=np.array(json.dumps({"format": 1, "model": vars(MODEL)})),
        names=np.array(["Ada", "Bób"]), consent=np.array(["", "form"]), created=np.array([5.0, 6.0]),
        expires=np.array([np.inf, 9e9]), subject=np.array([1, 0, 1]), vectors=vectors,
        weights=np.array([1.0, 0.5, 0.25]),
    )  # fmt: skip
    with Gallery(tmp_path / "g.db", MODEL, create=True) as gallery:
        assert import_gallery(gallery, tmp_path / "e.npz").samples == 3
        assert [(s.name, s.samples, s.consent, s.created, s.expires) for s in gallery.subjects()] == [
            ("Ada", 1, "", 5.0, None),
            ("Bób", 2, "form", 6.0, 9e9),
        ]
        assert gallery.search(vectors[1], top=1)[0][0].name == "Ada"


def rewritten(file, target, change):
    """A copy of an export with its members changed by `change(name, data)`; None leaves one out."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            data = change(name, source.read(name))
            if data is not None:
                copy.writestr(name, data)


def test_what_is_no_export_or_damaged_is_refused_in_one_line(exported, tmp_path):
    file, _, _ = exported
    target = tmp_path / "bad.npz"
    wrongs = [
        lambda n, d: None if n == "samples.vector.npy" else d,
        lambda n, d: d[:-40] if n == "samples.vector.npy" else d,
        lambda n, d: d[:-8] if n == "subjects.created.npy" else d,
        lambda n, d: d[:-8] + b"\xff" * 7 + b"\x7f" if n == "samples.crop.length.npy" else d,
        lambda n, d: d[:-1] + b"\xff" if n == "subjects.name.npy" else d,
        lambda n, d: np.array(1).tobytes() if n == "about.npy" else d,
        lambda n, d: d.replace(b"<f4", b"<f8") if n == "samples.vector.npy" else d,
    ]
    with Gallery(tmp_path / "g.db", MODEL, create=True) as gallery:
        for wrong in wrongs:
            rewritten(file, target, wrong)
            with pytest.raises(DataError, match=r"bad\.npz"):
                import_gallery(gallery, target)
        for data in (b"", b"hello", file.read_bytes()[:5000]):
            target.write_bytes(data)
            with pytest.raises(DataError, match="expected a gallery export"):
                import_gallery(gallery, target)
        with pytest.raises(DataError, match="no such file"):
            import_gallery(gallery, tmp_path / "absent.npz")
    other = ModelIdentity("other", DIM, "b" * 64)
    with (
        Gallery(tmp_path / "h.db", other, create=True) as gallery,
        pytest.raises(DataError, match="exported from the model 'fake'"),
    ):
        import_gallery(gallery, file)


_MEMORY = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
from visavis.deploy.gallery.exchange import export_gallery, import_gallery
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
model, place, n = ModelIdentity("fake", 64, "a" * 64), Path(sys.argv[1]), int(sys.argv[2])
with Gallery(place / "g.db", model, create=True) as gallery:
    for i in range(n):
        gallery.enroll(f"s{i}", np.random.default_rng(i).standard_normal((100, 64)), crops=[bytes(10_000)] * 100)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
with Gallery(place / "g.db", model) as gallery:
    export_gallery(gallery, place / "e.npz"); gallery.store.backup(place / "copy.db")
with Gallery(place / "h.db", model, create=True) as fresh:
    import_gallery(fresh, place / "e.npz")
print((place / "g.db").stat().st_size, peak() - before)
"""


def test_memory_of_export_import_and_backup_does_not_grow_with_the_gallery(tmp_path):
    said = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path), "100"], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip
    size, more = map(int, said.split())
    assert size > 90_000_000
    assert more < 30_000_000


def test_a_backup_is_whole_while_others_write(tmp_path):
    path = tmp_path / "g.db"
    code = """
import sys, time, numpy as np
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
gallery, end, i = Gallery(sys.argv[1], ModelIdentity("fake", 16, "a" * 64), create=True), time.time() + 2, 0
while time.time() < end:
    gallery.enroll_many([f"{i}-{k}" for k in range(50)], np.random.default_rng(i).standard_normal((50, 16)))
    i += 1
    print(i, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    copied = []
    with Gallery(path, MODEL) as gallery:
        while child.poll() is None:
            gallery.store.backup(tmp_path / f"copy {len(copied)}.db")
            copied.append(len(copied))
            time.sleep(0.2)
    child.stdout.close()
    counts = []
    for i in copied:
        with Gallery(tmp_path / f"copy {i}.db", MODEL) as copy:
            assert not copy.store.lacks_log
            copy.store.verify()
            counts.append(len(copy))
    assert len(counts) > 3
    assert counts == sorted(counts)
    assert all(count % 50 == 0 for count in counts)
