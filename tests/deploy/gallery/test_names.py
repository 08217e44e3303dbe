"""Names and notes of subjects: what they may hold."""

import numpy as np
import pytest

from visavis.deploy.gallery.encryption import AesGcm, NoCipher
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.errors import DataError

DIM = 32


MODEL = ModelIdentity("fake", DIM, "a" * 64)


CIPHERS = {"plain": NoCipher(), "sealed": AesGcm(b"k" * 32)}


def unit(seed, n=1):
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=["plain", "sealed"])
def cipher(request):
    return CIPHERS[request.param]


@pytest.fixture
def path(tmp_path, cipher):
    path = tmp_path / "people.db"
    with Gallery(path, MODEL, create=True, cipher=cipher, retention_days=3000) as gallery:
        for i in range(40):
            gallery.enroll(
                f"person {i}", unit(i, 2), weights=[0.5, 1], images=[b"%d" % i * 8, None], consent="asked in May",
                crops=[np.random.default_rng(i).bytes(900), None],
            )  # fmt: skip
    return path


NAMES = ["Ada Lovelace", "Ada\u200b Lovelace", "Ada\u00a0Lovelace", "A\u00adda Lovelace", "Ada Love\ufe0flace",
         "Ada \u2060Lovelace", "\ufeffAda Lovelace", "Ada  Lovelace", "Ada Lovelace\u3164"]  # fmt: skip


def test_a_name_has_no_twin_that_looks_the_same(path, cipher):
    with Gallery(path, MODEL, cipher=cipher) as gallery:
        for i, name in enumerate(NAMES):
            assert gallery.enroll(name, unit(100 + i)).subject.id == 41
            assert gallery.subject(name).id == 41
        with pytest.raises(DataError, match="taken by subject 41"):
            gallery.update("person 1", name="Ada\u200d Lovelace")
        assert gallery.enroll("Adä Lovelace", unit(1)).subject.id == 42
        assert gallery.enroll("می\u200cخواهم 👩\u200d🚀", unit(1)).subject.name == "می\u200cخواهم 👩\u200d🚀"


@pytest.mark.parametrize(
    "text", ["Ada\u202eecalevoL", "\u2066Ada\u2069", "Ada\u200f", "a\x1b[2J", "a\x85b", "\u200b\u200d"]
)
def test_names_and_notes_hold_no_control_and_direction_characters(path, cipher, text):
    with Gallery(path, MODEL, cipher=cipher) as gallery:
        with pytest.raises(DataError, match=r"control characters|something to be seen"):
            gallery.enroll(text, unit(1))
        with pytest.raises(DataError, match=r"control characters|something to be seen"):
            gallery.update("person 1", name=text)
        if "\u200d" not in text:
            with pytest.raises(DataError, match="control characters"):
                gallery.enroll("Eve", unit(1), consent=text)
            with pytest.raises(DataError, match="control characters"):
                gallery.update("person 1", consent=text)
        assert len(gallery) == 40


@pytest.mark.parametrize("who", [True, 1.0, None, b"person 1"])
def test_only_a_number_or_a_name_is_taken_for_a_subject(path, cipher, who):
    with Gallery(path, MODEL, cipher=cipher) as gallery:
        with pytest.raises(DataError, match="by name or number"):
            gallery.forget(who)
        with pytest.raises(DataError, match="nobody"):
            gallery.forget(10**30)
        assert len(gallery) == 40
