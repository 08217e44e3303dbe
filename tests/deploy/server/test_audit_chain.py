"""The end of an audit log's chain: found behind torn lines and in files longer than what is looked at first."""

import os

import pytest

from visavis.deploy.server.audit_chain import Link, chained_line, last_link, split_line


def written(path, count, *, tail=b""):
    """A log of `count` records and what was written after them; the last record's link."""
    link, whole = Link(), b""
    for number in range(count):
        line, link = chained_line({"event": "verify", "n": number}, link)
        whole += line
    path.write_bytes(whole + tail)
    return link


@pytest.mark.parametrize("count", [0, 1, 2, 300])  # 300 are more than the 16 KiB looked at first
@pytest.mark.parametrize("tail", [b"", b'{"number": 7, "event": "torn', b"x" * 20_000])
def test_the_last_whole_record_is_found_behind_whatever_follows(tmp_path, count, tail):
    link = written(tmp_path / "log", count, tail=tail)
    file = os.open(tmp_path / "log", os.O_RDONLY)
    try:
        assert last_link(file, (tmp_path / "log").stat().st_size) == (link, bool(tail))
    finally:
        os.close(file)
    assert link.number == count


def test_a_record_knows_its_place_and_the_digest_of_its_bytes():
    line, link = chained_line({"event": "verify"}, Link(4, "a" * 64))
    record, found, digest = split_line(line.rstrip(b"\n"))
    assert (record["number"], record["previous"], found, digest) == (5, "a" * 64, link, link.digest)
    changed = line.replace(b"verify", b"forget").rstrip(b"\n")
    assert split_line(changed)[2] != link.digest
    for no_record in (b"", b"{}", b'{"number": 1}', line[:-5]):
        assert split_line(no_record) is None
