"""RecordIO: bytes by hand, InsightFace's index records, damage, scans, workers, resumed writing."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import insightface_set, write_payloads

from visavis.data.sources.rec import open_records
from visavis.data.sources.recordio import MAGIC, RecordFile, pack, read_index, unpack
from visavis.errors import DataError


def test_bytes_of_a_record(tmp_path):
    path = write_payloads(tmp_path, [b"abcde", b""])
    assert path.read_bytes() == struct.pack("<II", MAGIC, 5) + b"abcde\0\0\0" + struct.pack("<II", MAGIC, 0)
    assert path.with_suffix(".idx").read_bytes() == b"0\t0\n1\t16\n"


def test_a_payload_with_the_magic_is_cut_into_parts(tmp_path):
    magic = struct.pack("<I", MAGIC)
    payload = b"head" + magic + b"body" + magic + b"end"
    path = write_payloads(tmp_path, [payload, b"x" + magic])
    expected = (
        magic + struct.pack("<I", 1 << 29 | 4) + b"head"
        + magic + struct.pack("<I", 2 << 29 | 4) + b"body"
        + magic + struct.pack("<I", 3 << 29 | 3) + b"end\0"
    )  # fmt: skip
    assert path.read_bytes().startswith(expected)
    file = RecordFile(path)
    offsets, _ = file.scan()
    assert [file.read(int(o)) for o in offsets] == [payload, b"x" + magic]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([b"", b"a", b"bcd", b"efgh", struct.pack("<I", MAGIC)]), max_size=9), max_size=5)
)
def test_any_payloads_come_back(tmp_path_factory, pieces):
    payloads = [b"".join(parts) for parts in pieces] + [b"last"]
    path = write_payloads(tmp_path_factory.mktemp("r"), payloads)
    file = RecordFile(path)
    keys, offsets = read_index(path.with_suffix(".idx"))
    assert [file.read(int(o)) for o in offsets] == payloads
    assert np.array_equal(file.scan()[0], offsets)
    assert keys.tolist() == list(range(len(payloads)))


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=40),
    st.one_of(st.integers(0, 2**24).map(float), st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(tuple)),
)
def test_headers_come_back(data, labels):
    record = unpack(pack(data, labels, id=7, id2=9))
    assert record.data == (data)
    assert (record.id, record.id2) == (7, 9)
    if isinstance(labels, tuple) and labels:
        assert record.labels == labels
    elif not isinstance(labels, tuple):
        assert record.labels == (labels,)


@pytest.mark.parametrize("index", [True, False])
def test_a_truncated_file(tmp_path, index):
    path = insightface_set(tmp_path, index=index)
    offsets = RecordFile(path).scan()[0]
    path.write_bytes(path.read_bytes()[: offsets[4] + 40])
    with pytest.raises(DataError, match=r"truncated|runs past the end"):
        open_records(path).read(3)
    kept = open_records(path, skip_damaged=True)
    assert len(kept) == 3
    assert kept.skipped
