"""The audit log as a file: a chain that shows changes, written by several processes, with kills and full disks."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys

import pytest

from visavis.cli import main
from visavis.deploy.server.audit import AuditError, AuditLog
from visavis.deploy.server.audit_chain import Link, chained_line
from visavis.deploy.server.audit_check import check_audit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def ten(path):
    log = AuditLog(path)
    for i in range(10):
        log.write("look", subjects=[i])
    log.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_record_is_a_line_of_json_only_the_owner_may_read(path):
    mask = os.umask(0)
    log = AuditLog(path)
    os.umask(mask)
    log.write("forget", subjects=[3], said='a "quoted"\n\u2028 line')
    log.write("look")
    log.close()
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["number"], first["event"], first["subjects"]) == (1, "forget", [3])
    assert second["previous"] == first["digest"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()] == [0o600, 0o600]
    done = check_audit([path])
    assert (done.records, done.findings, done.notes, done.head) == (2, [], [], Link(2, second["digest"]))


@pytest.mark.parametrize("index", range(10))
def test_a_line_that_was_removed_changed_or_repeated_shows(path, ten, index):
    for lines in (
        ten[:index] + ten[index + 1 :],
        [*ten[:index], ten[index].replace(b'"look"', b'"lock"'), *ten[index + 1 :]],
        [*ten[:index], ten[index].replace(b'"number": ', b'"number": 1'), *ten[index + 1 :]],
        [*ten[:index], b"\n", *ten[index:]],
        ten[: index + 1] + ten[index:],
        ten[:index],
    ):
        path.write_bytes(b"".join(lines))
        assert check_audit([path]).findings, lines
        assert main(["audit", "check", str(path)]) == 1
    path.write_bytes(b"".join(ten))
    assert check_audit([path]).findings == []


def test_a_rewritten_record_does_not_fit_its_neighbors(path, ten):
    forged = AuditLog(path.with_name("other"))
    for i in range(10):
        forged.write("look", subjects=[99 if i == 4 else i])
    forged.close()
    other = forged.path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*ten[:4], other[4], *ten[5:]]))
    assert any("does not follow" in finding for finding in check_audit([path]).findings)
    path.write_bytes(b"".join(other))  # the whole chain anew: only what is kept elsewhere shows it
    assert "record 10" in check_audit([path]).findings[0]


def test_a_last_record_made_anew_shows_when_writing_goes_on(path, ten):
    record = json.loads(ten[-1])
    previous = Link(9, record.pop("previous"))
    del record["number"], record["digest"]
    line, _ = chained_line({**record, "subjects": [99]}, previous)
    path.write_bytes(b"".join([*ten[:9], line]))
    assert check_audit([path]).findings == [
        f"record 10 with digest {json.loads(ten[-1])['digest'][:16]} is not in the log"
    ]
    log = AuditLog(path)
    log.write("look")
    log.close()
    assert "does not follow the record before it" in check_audit([path]).findings[0]


def test_the_command_says_what_is_missing(path, ten, capsys):
    assert main(["audit", "check", str(path)]) == 0
    said = capsys.readouterr().out
    assert "10 records" in said
    assert "whole" in said
    anchor = said.split("last record ")[1].strip()
    assert main(["audit", "check", str(path), "--anchor", anchor]) == 0
    path.write_bytes(b"".join(ten[:3] + ten[5:]))
    capsys.readouterr()
    assert main(["audit", "check", str(path)]) == 1
    assert "records 4 to 5 are missing before" in capsys.readouterr().out
    for words in (["chekc", "x"], ["check", str(path), "--start", "0"], ["check", str(path), "--anchor", "3"],
                  ["check", str(path) + "x"]):  # fmt: skip
        assert main(["audit", *words]) == 2


def test_what_is_cut_off_stays_missing_when_writing_goes_on(path, ten):
    path.write_bytes(b"".join(ten[:6]))
    log = AuditLog(path)
    log.write("look")
    log.close()
    assert check_audit([path]).findings == [f"records 7 to 10 are missing before {path}:7"]


def test_a_moved_log_goes_on_in_a_new_file(path):
    log = AuditLog(path)
    log.write("a")
    log.write("b")
    moved = path.rename(path.with_name("audit.jsonl.1"))
    log.write("c")
    log.close()
    again = AuditLog(path)
    again.write("d")
    again.close()
    assert len(path.read_bytes().splitlines()) == 2
    assert check_audit([moved, path]).findings == []
    assert check_audit([path]).findings != []
    assert check_audit([path], start=3).findings == []


def test_a_log_of_an_earlier_release_is_continued(path):
    path.write_text('{"time": 1, "action": "POST /forget"}\n{"time": 2, "action": "GET /subjects"}\n')
    log = AuditLog(path)
    log.write("look")
    log.close()
    done = check_audit([path])
    assert (done.records, len(done.notes), done.findings) == (1, 2, [])


def test_a_log_that_others_can_read_is_warned_of(path, caplog):
    path.touch(0o644)
    path.chmod(0o644)
    AuditLog(path).close()
    assert f"chmod 600 {path}" in caplog.text
    path.chmod(0o600)
    caplog.clear()
    AuditLog(path).close()
    assert caplog.text == ""


def test_a_torn_line_is_reported_and_the_next_one_is_whole(path, ten):
    path.write_bytes(b"".join(ten)[:-30])
    log = AuditLog(path)
    log.write("look")
    log.close()
    assert json.loads(path.read_bytes().splitlines()[-1])["number"] == 11
    assert "is no record" in check_audit([path]).findings[0]


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "a", tmp_path / "folder", "/dev/full"):
        with pytest.raises(AuditError, match="cannot be written"):
            AuditLog(path)


def test_what_a_full_disk_refused_is_written_later(path):
    log = AuditLog(path)
    log.write("one")
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))
    try:
        with pytest.raises(AuditError):
            log.write("two")
        with pytest.raises(AuditError):
            log.write("never happened", keep=False)
        with pytest.raises(AuditError):
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (log.behind, path.stat().st_size) == (True, size)
    log.write("three")
    log.close()
    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines()] == ["one", "two", "three"]
    assert check_audit([path]).findings == []


WRITER = """
import sys
from visavis.deploy.server.audit import AuditLog
log = AuditLog(sys.argv[1])
for i in range(int(sys.argv[2])):
    log.write("look", process=sys.argv[3], turn=i)
    print(i, flush=True)
"""


def test_several_processes_make_one_chain_and_kills_do_not_break_it(path):
    def start(turns, name):
        return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(turns), name], stdout=subprocess.PIPE)

    steady = [start(400, f"steady{i}") for i in range(3)]
    doomed = [start(1_000_000, f"doomed{i}") for i in range(2)]
    seen = [[process.stdout.readline() for _ in range(30)] for process in doomed]
    for process in doomed:
        process.kill()  # while it writes
    written = {f"doomed{i}": len(seen[i]) + len(p.communicate()[0].splitlines()) for i, p in enumerate(doomed)}
    for process in steady:
        process.communicate()
        assert process.returncode == 0
    done = check_audit([path])
    assert done.findings == []
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    for name, turns in {**written, **dict.fromkeys(("steady0", "steady1", "steady2"), 400)}.items():
        own = [record["turn"] for record in records if record["process"] == name]
        assert own[:turns] == list(range(turns))
        assert len(own) <= turns + 1


HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_that_stopped_with_the_lock_delays_nobody_for_ever(path, monkeypatch):
    monkeypatch.setattr("visavis.deploy.server.audit._PATIENCE", 0.3)
    log = AuditLog(path)
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, f"{path}.head"], **pipe)
    holder.stdout.readline()
    with pytest.raises(AuditError, match="another process has held it"):
        log.write("one")
    holder.communicate()
    log.write("two")
    log.close()
    assert [json.loads(line)["event"] for line in path.read_bytes().splitlines()] == ["one", "two"]
