"""Galleries under a key hold nothing in plain text."""

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import KEY_VARIABLE, AesGcm
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError

DIM = 32


MODEL = ModelIdentity("fake", DIM, "a" * 64)


def unit(seed, n=1, dim=DIM):
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", MODEL, create=True) as made:
        yield made


def test_encrypted_galleries_hold_no_plain_vector_and_want_their_key(tmp_path, monkeypatch):
    path, key, vector = tmp_path / "g.db", AesGcm(b"k" * 32), unit(1)
    with Gallery(path, MODEL, create=True, cipher=key) as gallery:
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
        Gallery(path, MODEL, cipher=AesGcm(b"x" * 32))
    monkeypatch.setenv(KEY_VARIABLE, "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    with Gallery(path, MODEL) as gallery:
        assert gallery.forget("Ada").complete
    monkeypatch.setenv(KEY_VARIABLE, "not base64!")
    with pytest.raises(DataError, match="base64"):
        Gallery(path, MODEL)


def test_encrypted_galleries_hold_no_plain_name_note_or_picture_digest(tmp_path):
    path, key = tmp_path / "g.db", AesGcm(b"k" * 32)
    secrets = ["Zebulon Quackenbush", "Žofie Nováková", "letter of the 3rd of May"]
    with Gallery(path, MODEL, create=True, cipher=key) as gallery:
        gallery.enroll(secrets[0], unit(1), consent=secrets[2], images=[b"digest of a picture"])
        gallery.enroll_many([secrets[1], "Bob"], unit(2, 2), consent="asked")
        assert gallery.subject("Zebulon Quackenbush").consent == secrets[2]
        assert [s.name for s in gallery.subjects("quack")] == [secrets[0]]
        assert [s.name for s in gallery.subjects()] == ["Bob", *secrets[:2]]
        assert gallery.search(unit(1), top=1)[0][0].name == secrets[0]
        again = gallery.enroll(secrets[0], unit(1), images=[b"digest of a picture"])
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
