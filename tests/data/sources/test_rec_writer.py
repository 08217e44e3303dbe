"""Records written: read back, interrupted, resumed, started anew."""

import numpy as np
import pytest

from visavis.data.sources import open_source
from visavis.data.sources.rec_writer import write_records
from visavis.data.sources.recordio import RecordFile, unpack
from visavis.errors import DataError
from visavis.vision import images


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
