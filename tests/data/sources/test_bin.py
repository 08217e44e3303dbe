"""Verification sets: every pickle dialect that builds plain values is read, everything else refused and not run."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.data.pair_lists.benchmarks import bin_pairs
from visavis.data.sources import open_source
from visavis.data.sources.bin import open_bin, write_bin
from visavis.data.sources.plain_pickle import loads
from visavis.errors import DataError
from visavis.metrics.kfold import contiguous_folds
from visavis.vision import images


def encoded_images(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [images.encode(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), ".jpg") for _ in range(count)]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "how", ["bytes", "bytearray", "array", "list of numpy bools", "array of bools", "tuple", "ints"]
)
def test_every_protocol_and_form(tmp_path, protocol, how):
    encoded, same = encoded_images(6), [True, False, True]
    value: object = (encoded, same)
    if how == "bytearray":
        value = ([bytearray(p) for p in encoded], same)
    if how == "array":
        value = ([np.frombuffer(p, np.uint8) for p in encoded], same)
    if how == "list of numpy bools":
        value = (encoded, [np.bool_(v) for v in same])
    if how == "array of bools":
        value = (encoded, np.array(same))
    if how == "tuple":
        value = [tuple(encoded), tuple(same)]
    if how == "ints":
        value = (encoded, [1, 0, 1])
    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps(value, protocol))
    source = open_bin(path)
    assert [source.read(i) for i in range(6)] == encoded
    assert source.genuine.tolist() == same


def python2(encoded: list[bytes], same: list[bool]) -> bytes:
    """What Python 2's cPickle writes with protocol 2 for (list of str, list of bool), put together by hand."""
    out = b"\x80\x02]q\x01("
    for i, p in enumerate(encoded):
        out += b"T" + len(p).to_bytes(4, "little") + p + b"r" + (i + 10).to_bytes(4, "little")
    out += b"e]q\x02(" + b"".join(b"\x88" if s else b"\x89" for s in same) + b"e\x86q\x03."
    return out


def test_python_2(tmp_path):
    encoded, same = encoded_images(4), [False, True]
    path = tmp_path / "old.bin"
    path.write_bytes(python2(encoded, same))
    assert pickle.loads(path.read_bytes(), encoding="bytes") == (encoded, same)  # the bytes above are a true pickle
    source = open_source(path)
    assert [source.read(i) for i in range(4)] == encoded


def test_python_2_protocol_0(tmp_path):
    text = b"((lp1\n" + b"".join(
        b"S%s\np%d\na" % (repr(p)[1:].encode(), i + 5) for i, p in enumerate([b"a\x00'\n", b"\xff"])
    )
    text += b"(lp2\nI01\natp3\n."
    assert pickle.loads(text, encoding="bytes") == ([b"a\x00'\n", b"\xff"], [True])
    path = tmp_path / "older.bin"
    path.write_bytes(text)
    source = open_bin(path)
    assert [source.read(0), source.read(1)] == [b"a\x00'\n", b"\xff"]


def test_decoded_arrays_come_as_png(tmp_path):
    decoded = [np.random.default_rng(k).integers(0, 256, (9, 7, 3), dtype=np.uint8) for k in range(2)]
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps((decoded, [True])))
    source = open_bin(path)
    assert np.array_equal(source.image(1), decoded[1])


def test_identities_are_what_genuine_pairs_join(tmp_path):
    p = encoded_images(8)
    path = tmp_path / "a.bin"
    shared = [p[0], p[1], p[1], p[2], p[3], p[4], p[5], p[6]]  # the picture in the middle joins two genuine pairs
    path.write_bytes(pickle.dumps((shared, [True, True, False, False])))
    source = open_bin(path)
    assert source.labels.tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert source.names[5] == "00002/000005.jpg"


def test_pairs_and_folds(tmp_path):
    path = tmp_path / "a.bin"
    same = [True, False, True, False, True]
    assert list(write_bin(encoded_images(10), same, path))[-1] == 10
    pairs = bin_pairs(open_bin(path), folds=2)
    assert pairs.genuine.tolist() == same
    assert pairs.fold.tolist() == [0, 0, 0, 1, 1]
    assert pairs.images[pairs.probe[4]] == open_bin(path).names[9]
    assert contiguous_folds(6000, 10).tolist() == sorted(list(range(10)) * 600)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=600), st.binary(max_size=3), st.booleans()), min_size=1, max_size=8))
def test_written_sets_are_true_pickles(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("b") / "a.bin"
    encoded = [p for a, b, _ in rows for p in (a, b)]
    list(write_bin(encoded, [same for *_, same in rows], path))
    assert pickle.loads(path.read_bytes()) == (encoded, [same for *_, same in rows])
    source = open_bin(path)
    assert [source.read(i) for i in range(len(encoded))] == encoded
    assert pickle.loads(pickle.dumps(source)).read(0) == encoded[0]


def test_wrong_numbers_are_not_written(tmp_path):
    with pytest.raises(DataError, match="2 pairs want 4 pictures"):
        list(write_bin([b"a"], [True, False], tmp_path / "a.bin"))
    assert not list(tmp_path.iterdir())


class Hostile:
    """Its pickle asks for os.system to be called."""

    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_of_a_hostile_file_runs(tmp_path, protocol):
    marker = tmp_path / "ran"
    data = pickle.dumps(([b"a", Hostile(marker)], [True]), protocol)
    path = tmp_path / "evil.bin"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"posix.system, which is refused"):
        open_bin(path)
    assert not marker.exists()
    pickle.loads(data)  # the same file does harm where it is unpickled: the test above was about something
    assert marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2, 3], "expected a pickle of"),
        (([b"a"], [True]), "1 pairs want 2 pictures"),
        (([b"a", 3], [True]), "picture 1: expected bytes, got int"),
        (([b"a", b"b"], [2]), "one bool a pair"),
        (([], []), "at least 2"),
        (b"abc", "expected a pickle of"),
    ],
)
def test_other_contents(tmp_path, value, message):
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=message):
        open_bin(path)


def test_truncated_at_every_byte(tmp_path):
    data = pickle.dumps(([b"abc" * 100, np.arange(4, dtype=np.uint8)], [True]))
    path = tmp_path / "a.bin"
    for end in range(len(data)):
        with pytest.raises(DataError):
            loads(data[:end])
    for end in range(0, len(data), 50):
        path.write_bytes(data[:end])
        with pytest.raises(DataError):
            open_bin(path)
