"""RecordIO: bytes by hand, InsightFace's index records, damage, scans, workers, resumed writing."""

import multiprocessing
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.data.sources import open_source, recordio
from visavis.data.sources.rec import open_records
from visavis.data.sources.rec_writer import write_records
from visavis.data.sources.recordio import MAGIC, RecordFile, RecordWriter, pack, read_index, unpack
from visavis.errors import DataError
from visavis.vision import images


def write_payloads(folder, payloads, *, index=True, keys=None):
    rec, idx = folder / "train.rec", folder / "train.idx"
    with rec.open("wb") as record, idx.open("wb") as lines:
        writer = RecordWriter(record, lines)
        for key, payload in zip(keys or range(len(payloads)), payloads, strict=True):
            writer.write(key, payload)
    if not index:
        idx.unlink()
    return rec


def insightface_set(folder, sizes=(2, 3, 1), *, index=True, extra_labels=()):
    """A training set laid out by hand as InsightFace's: header record, pictures, one range record per identity."""
    n = sum(sizes)
    payloads = [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", n + 1, n + 1 + len(sizes))]
    ranges, key = [], 1
    for label, size in enumerate(sizes):
        for _ in range(size):
            if extra_labels:
                values = (float(label), *extra_labels)
                head = struct.pack("<IfQQ", len(values), 0, key, 0) + struct.pack(f"<{len(values)}f", *values)
            else:
                head = struct.pack("<IfQQ", 0, label, key, 0)
            payloads.append(head + images.encode(np.full((8, 8, 3), 20 * key % 256, np.uint8), ".png"))
            key += 1
        ranges.append((key - size, key))
    payloads += [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", *pair) for pair in ranges]
    return write_payloads(folder, payloads, index=index)


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


@pytest.fixture
def people(tmp_path):
    folder = tmp_path / "people"
    rng = np.random.default_rng(0)
    for who, count in (("Ann Lee", 2), ("Bob", 1), ("Cy", 3)):
        (folder / who).mkdir(parents=True)
        for n in range(count):
            images.write(folder / who / f"{n}.jpg", rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    return open_source(folder)


def test_written_and_read_back(tmp_path, people):
    assert list(write_records(people, tmp_path / "out")) == [1, 2, 3, 4, 5, 6]
    source = open_source(tmp_path / "out")
    assert (source.names, source.identities) == (people.names, people.identities)
    assert np.array_equal(source.labels, people.labels)
    assert [source.read(i) for i in range(6)] == [people.read(i) for i in range(6)]
    assert (tmp_path / "out" / "property").read_text() == "3,16,16\n"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["property", "train.idx", "train.lst", "train.rec"]
    header = unpack(RecordFile(tmp_path / "out" / "train.rec").read(0))
    assert header.labels == (7.0, 10.0)


@pytest.mark.parametrize("stop", range(1, 7))
@pytest.mark.parametrize("cut", [0, 5])
def test_an_interrupted_run_goes_on(tmp_path, people, stop, cut):
    list(write_records(people, tmp_path / "whole"))
    run = write_records(people, tmp_path / "out")
    for _ in range(stop):
        next(run)
    run.close()
    part = tmp_path / "out" / "train.rec.part"
    part.write_bytes(part.read_bytes()[: -cut or None])
    rest = list(write_records(people, tmp_path / "out"))
    assert rest == list(range(stop - (cut > 0) + 1, 7))
    for name in ("train.rec", "train.idx", "train.lst", "property"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_lists_of_names_that_do_not_fit(tmp_path, people):
    list(write_records(people, tmp_path / "out"))
    listing = tmp_path / "out" / "train.lst"
    listing.write_text(listing.read_text().replace("Bob/0.jpg", "Ann Lee/9.jpg"))
    assert open_source(tmp_path / "out").identities == ("0", "1", "2")  # two labels in one folder: not believed
    listing.write_text("²\t0\tAnn/1.jpg\n")
    with pytest.raises(DataError, match="line 1: expected `key TAB label TAB identity/picture`"):
        open_source(tmp_path / "out")


def test_another_source_starts_anew(tmp_path, people):
    run = write_records(people, tmp_path / "out")
    next(run)
    run.close()
    assert list(write_records(people.only(["Bob"]), tmp_path / "out")) == [1]
    assert open_source(tmp_path / "out").names == ("Bob/0.jpg",)
