"""RecordIO: bytes by hand, InsightFace's index records, damage, scans, workers, resumed writing."""

import json
import os
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import insightface_set, write_payloads

from visavis.data.sources import recordio
from visavis.data.sources.rec import open_records
from visavis.data.sources.recordio import MAGIC, RecordFile, pack, read_index, unpack
from visavis.errors import DataError
from visavis.files import read_at


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


@pytest.mark.parametrize("span", [1, 8, 9, 100, 1 << 14, 1 << 30])
def test_records_come_whole_however_much_is_read_at_first(tmp_path, span):
    payloads = [
        b"",
        b"abc",
        bytes(70_000),
        struct.pack("<I", MAGIC) * 3 + b"x",
        b"1234" + struct.pack("<I", MAGIC) + bytes(50_000) + struct.pack("<I", MAGIC),
    ]
    file = RecordFile(write_payloads(tmp_path, payloads))
    offsets = file.scan()[0].tolist()
    assert [file.read(offset, span=span) for offset in offsets] == payloads


def test_a_read_takes_the_record_and_no_more(tmp_path, monkeypatch):
    path = write_payloads(tmp_path, [pack(bytes([i]) * 10_000, float(i)) for i in range(20)])
    source = open_records(path)
    asked = []

    def counted(handle, offset, count):
        asked.append(count)
        return read_at(handle, offset, count)

    monkeypatch.setattr(recordio, "read_at", counted)
    for index in (3, 19, 0, 11):
        assert source.read(index) == bytes([index]) * 10_000
    assert len(asked) == 4
    assert max(asked) < 10_100


def test_a_file_shortened_while_it_is_open_is_an_error_and_no_signal(tmp_path):
    payloads = [bytes(30_000)] * 8
    file = RecordFile(write_payloads(tmp_path, payloads))
    offsets = file.scan()[0].tolist()
    os.truncate(file.path, 100_000)
    assert file.read(offsets[0]) == payloads[0]
    with pytest.raises(DataError, match=r"was shortened while it was read: nothing at byte 1"):
        file.read(offsets[6])


def test_threads_read_at_once(tmp_path):
    payloads = [bytes([i]) * 1000 for i in range(200)]
    file = RecordFile(write_payloads(tmp_path, payloads))
    offsets = file.scan()[0].tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(file.read, offsets * 5)) == payloads * 5


MXNET = os.environ.get("MXNET_PYTHON")
_THEIR_WRITER = """
import struct, sys
import numpy as np
if not hasattr(np, "bool"):
    np.bool = bool
from mxnet import recordio
file = recordio.MXIndexedRecordIO(sys.argv[1] + ".idx", sys.argv[1] + ".rec", "w")
magic = struct.pack("<I", 0xCED7230A)
bodies = [b"", b"abc", magic, b"ab" + magic, b"abcd" + magic + magic + b"tail", bytes(range(256)) * 5]
for i, body in enumerate(bodies):
    label = float(i) if i % 2 else np.array([i, i + 0.5, -1], np.float32)
    file.write_idx(i, recordio.pack(recordio.IRHeader(0, label, 10 + i, 3), body))
file.close()
"""
_THEIR_READER = """
import json, sys
import numpy as np
if not hasattr(np, "bool"):
    np.bool = bool
from mxnet import recordio
file = recordio.MXIndexedRecordIO(sys.argv[1] + ".idx", sys.argv[1] + ".rec", "r")
found = []
for key in file.keys:
    header, body = recordio.unpack(file.read_idx(key))
    found.append([np.atleast_1d(header.label).tolist(), header.id, body.hex()])
print(json.dumps(found))
"""


@pytest.mark.skipif(not MXNET, reason="MXNET_PYTHON names no Python with MXNet 1.9.1 (numpy 1.23)")
def test_records_of_mxnet_itself_are_read_and_it_reads_ours(tmp_path):
    """MXNet's own code writes what is read here, to the byte, and reads what is written here."""
    magic = struct.pack("<I", MAGIC)
    bodies = [b"", b"abc", magic, b"ab" + magic, b"abcd" + magic + magic + b"tail", bytes(range(256)) * 5]
    subprocess.run([MXNET, "-c", _THEIR_WRITER, str(tmp_path / "theirs")], check=True, capture_output=True)
    keys, offsets = read_index(tmp_path / "theirs.idx")
    file = RecordFile(tmp_path / "theirs.rec")
    assert keys.tolist() == list(range(6))
    payloads = [file.read(int(offset)) for offset in offsets]
    for i, payload in enumerate(payloads):
        record = unpack(payload)
        assert record.data == bodies[i]
        assert record.labels == ((float(i),) if i % 2 else (i, i + 0.5, -1.0))
        assert (record.id, record.id2) == (10 + i, 3)
    ours = write_payloads(tmp_path, payloads)
    assert ours.read_bytes() == (tmp_path / "theirs.rec").read_bytes()
    made = [pack(body, (1.0, 2.5) if i % 2 else float(i), id=i) for i, body in enumerate(bodies)]
    stem = str(write_payloads(tmp_path, made).with_suffix(""))
    done = subprocess.run([MXNET, "-c", _THEIR_READER, stem], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [[1.0, 2.5] if i % 2 else [float(i)], i, body.hex()] for i, body in enumerate(bodies)
    ]
