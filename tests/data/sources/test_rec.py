"""Record files as sources: InsightFace's index records, ranges, damage, workers."""

import multiprocessing
import pickle
import struct

import numpy as np
import pytest
from records import insightface_set, write_payloads

from visavis.data.sources import open_source, recordio
from visavis.data.sources.rec import open_records
from visavis.data.sources.recordio import MAGIC, pack, read_index
from visavis.errors import DataError


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("extra", [(), (0.5, 7.0)])
def test_insightface_set(tmp_path, index, extra):
    """Row A15: the original reads the header as picture 0 and misses the last one."""
    source = open_records(insightface_set(tmp_path, index=index, extra_labels=extra))
    assert len(source) == 6
    assert source.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert source.identities == ("0", "1", "2")
    assert source.names == ("0/1.jpg", "0/2.jpg", "1/3.jpg", "1/4.jpg", "1/5.jpg", "2/6.jpg")
    assert [int(source.image(i)[0, 0, 0]) for i in range(6)] == [20, 40, 60, 80, 100, 120]


def test_labels_come_from_the_ranges_when_they_are_true(tmp_path, monkeypatch):
    """Row A15."""
    path = insightface_set(tmp_path, sizes=(3000, 2))
    asked = []
    whole = recordio.RecordFile.read
    monkeypatch.setattr(recordio.RecordFile, "read", lambda self, offset: asked.append(offset) or whole(self, offset))
    source = open_records(path)
    assert np.bincount(source.labels).tolist() == [3000, 2]
    assert len(asked) < 5


def test_ranges_that_lie_are_not_believed(tmp_path):
    n = 4
    payloads = [pack(b"", (n + 1.0, n + 3.0))]
    payloads += [pack(b"x", float(label)) for label in (5, 5, 5, 9)]
    payloads += [pack(b"", (1.0, 3.0)), pack(b"", (3.0, 5.0))]
    source = open_records(write_payloads(tmp_path, payloads))
    assert source.labels.tolist() == [0, 0, 0, 1]
    assert source.identities == ("5", "9")


def test_a_plain_record_file_without_index_records(tmp_path):
    payloads = [pack(b"jpeg", float(label), id=k) for k, label in enumerate((3, 1, 3))]
    path = write_payloads(tmp_path, payloads)
    assert open_records(path).labels.tolist() == [1, 0, 1]
    path.with_suffix(".idx").unlink()
    assert open_records(path).keys.tolist() == [0, 1, 2]


def test_the_folder_and_the_idx_open_too(tmp_path):
    insightface_set(tmp_path)
    assert len(open_source(tmp_path)) == len(open_source(tmp_path / "train.idx")) == 6


def test_a_folder_with_one_record_file_of_any_name(tmp_path):
    path = insightface_set(tmp_path)
    for suffix in (".rec", ".idx"):
        path.with_suffix(suffix).rename(tmp_path / f"casia{suffix}")
    assert len(open_source(tmp_path)) == 6
    (tmp_path / "second.rec").write_bytes(b"x")
    with pytest.raises(DataError, match=r"single \.rec, got casia\.rec, second\.rec"):
        open_source(tmp_path)


def test_a_broken_magic_is_named_by_its_byte(tmp_path):
    path = insightface_set(tmp_path)
    _, offsets = read_index(path.with_suffix(".idx"))
    data = bytearray(path.read_bytes())
    data[offsets[3]] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"damaged at byte {offsets[3]}: expected the magic 0xced7230a, got"):
        open_records(path).read(2)
    kept = open_records(path, skip_damaged=True)
    assert len(kept) == 5
    assert kept.skipped == (("record 3", f"damaged at byte {offsets[3]}"),)
    path.with_suffix(".idx").unlink()
    with pytest.raises(DataError, match=f"damaged at byte {offsets[3]}"):
        open_records(path)
    scanned = open_source(path, skip_damaged=True)
    assert len(scanned) == 5
    assert len(scanned.skipped) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("0\n", "line 1: expected"),
        ("0\t0\n1\tx\n", "line 2: expected"),
        ("0\t0\n1\t-5\n", "line 2: expected"),
        ("0\t0\n0\t40\n", "the key 0 occurs twice"),
        ("0\t0\n1\t99999999\n", "truncated"),
        ("0\t0\n1\t99999999999999999999999999\n", "line 2|truncated"),
        ("0\t3\n", "truncated"),
    ],
)
def test_bad_index_files(tmp_path, text, message):
    path = insightface_set(tmp_path)
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(DataError, match=message):
        open_records(path)


@pytest.mark.parametrize(
    "data", [b"", b"1234567", b"not a record file at all", struct.pack("<II", MAGIC, 3 << 29 | 4) + b"abcd"]
)
def test_what_is_no_record_file(tmp_path, data):
    (tmp_path / "train.rec").write_bytes(data)
    with pytest.raises(DataError, match=r"train\.rec"):
        open_records(tmp_path / "train.rec")


def test_labels_that_are_no_numbers(tmp_path):
    path = write_payloads(tmp_path, [pack(b"x", float("nan"))])
    with pytest.raises(DataError, match="expected a whole number as label, got nan at byte 0"):
        open_records(path)


def test_workers_read_at_random(tmp_path):
    source = open_records(insightface_set(tmp_path, sizes=(10, 10)))
    assert pickle.loads(pickle.dumps(source)).read(7) == source.read(7)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        order = np.random.default_rng(0).permutation(20).tolist()
        assert pool.map(source.read, order) == [source.read(i) for i in order]
