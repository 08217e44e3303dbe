"""Who a run is trained on, kept and read back; what differs is said by name."""

import json

import pytest

from visavis.errors import ModelFormatError
from visavis.train.identities import FILE, Identities, read_identities, say_difference


def test_they_are_read_back_as_they_were_kept_with_names_of_any_bytes(tmp_path):
    people = Identities(("Ann", "José", "b\udcffd"), (3, 1, 2))
    people.save(tmp_path)
    assert read_identities(tmp_path) == people
    assert people.summary() == {"count": 3, "images": 6, "digest": people.digest}


def test_what_is_kept_is_written_once_and_again_only_where_it_differs(tmp_path):
    people = Identities(("Ann", "Bob"), (3, 1))
    people.save(tmp_path)
    before = (tmp_path / FILE).stat()
    people.save(tmp_path)
    assert (tmp_path / FILE).stat().st_ino == before.st_ino
    Identities(("Ann", "Bob"), (3, 2)).save(tmp_path)
    assert read_identities(tmp_path).counts == (3, 2)


def test_a_digest_is_of_names_counts_and_their_order():
    different = [("A", "B"), ("B", "A"), ("A", "B\0")]
    digests = {Identities(names, (1, 2)).digest for names in different} | {Identities(("A", "B"), (2, 1)).digest}
    assert len(digests) == 4


def test_absent_identities_are_an_error_unless_they_may_be(tmp_path):
    assert read_identities(tmp_path, missing_ok=True) is None
    with pytest.raises(ModelFormatError, match="cannot read the identities"):
        read_identities(tmp_path)
    (tmp_path / FILE).parent.mkdir()
    (tmp_path / FILE).write_text(json.dumps({"names": ["Ann"]}))
    with pytest.raises(ModelFormatError, match="cannot read the identities"):
        read_identities(tmp_path, missing_ok=True)


def test_a_difference_names_who_is_gone_and_who_is_new():
    said = say_difference(Identities(("Ann", "Bob", "Cid"), (1, 2, 3)), Identities(("Ann", "Cid", "Zoe"), (1, 4, 1)))
    assert all(words in said for words in ("Bob is gone", "Zoe is new", "Cid"))
