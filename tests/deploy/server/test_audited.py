"""What the service and the command line write to the audit log, and that nothing happens that cannot be written."""

import json
import os
import resource
import signal
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from visavis.deploy.server.audit import AuditError
from visavis.deploy.server.audit_check import check_audit

TOKENS = {"w" * 24: "write", "r" * 24: "read"}


WRITER, READER = ({"Authorization": f"Bearer {c * 24}"} for c in "wr")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def client(start, path):
    service = start(audit=path, tokens=TOKENS, keep_crops=True, rate=1000)
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        client.service = service
        yield client


def records(path, *events):
    every = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [record for record in every if not events or record.get("event") in events]


def enroll(client, draw, *names):
    people = dict(zip(names, (draw.RED, draw.GREEN, draw.BLUE), strict=False))
    return [
        client.post("/enroll", files={"pictures": draw.jpeg(color)}, data={"name": name}, headers=WRITER).json()[
            "subject"
        ]["id"]
        for name, color in people.items()
    ]


def test_refusals_are_events(client, path, draw):
    client.get("/subjects", headers={"Authorization": "Bearer wrong"})
    client.get("/subjects")
    client.post("/forget", json={"ids": [1]}, headers=READER)
    client.get("/model", headers=READER | {"Origin": "https://evil.example"})
    written = records(path, "refused")
    assert [(r["status"], r["asked"]) for r in written] == [
        (401, "list"), (401, "list"), (403, "forget"), (403, "model"),
    ]  # fmt: skip
    assert {r["address"] for r in written} == {"127.0.0.1"}
    assert written[2]["client"].startswith("token:")
    assert written[2]["role"] == "read"
    assert check_audit([path]).findings == []


def test_what_nobody_was_admitted_to_is_no_event(client, path):
    before = len(records(path))
    for method, url in (("PUT", "/subjects"), ("HEAD", "/subjects/1"), ("POST", "/model"), ("GET", "/nowhere")):
        assert client.request(method, url).status_code in (404, 405)
    assert client.get("/subjects", headers={"Host": "[::1", "Origin": "http://["}).status_code == 400
    assert len(records(path)) == before


def test_misdirected_and_too_many_requests_are_events(start, tmp_path):
    service = start(audit=tmp_path / "a", rate=3)
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        client.get("/model", headers={"Host": "evil.example"})
        for _ in range(6):
            client.get("/model")
    assert [r["status"] for r in records(tmp_path / "a", "refused")] == [421, 429, 429, 429]


def test_a_flood_of_refusals_is_counted_not_written(start, path, draw):
    service = start(audit=path, tokens=TOKENS)
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        for _ in range(200):
            client.get("/model", headers={"Authorization": "Bearer wrong"})
    service.server.should_exit = True
    service.thread.join(20)
    written = records(path, "refused")
    assert len(written) <= 122
    assert (
        sum(1 if "status" in r else r["left_out"] for r in written)
        + sum(r.get("left_out", 0) for r in written if "status" in r)
        == 200
    )


def test_forgets_merges_and_looks_name_the_subjects_they_resolved_to(client, path, draw):
    ann, ben, cat = enroll(client, draw, "Ann", "Ben", "Cat")
    client.get(f"/subjects/{ann}/crop", headers=READER)
    client.get(f"/subjects/{cat}", headers=READER)
    client.get("/subjects", headers=READER)
    client.patch(f"/subjects/{cat}", json={"consent": "form 7"}, headers=WRITER)
    client.post(f"/subjects/{ann}/merge", json={"names": ["Ben"]}, headers=WRITER)
    client.post("/forget", json={"names": ["Cat"]}, headers=WRITER)
    done = [r for r in records(path) if "status" in r]
    assert [(r["event"], r.get("subjects")) for r in done] == [
        ("enroll", [ann]), ("enroll", [ben]), ("enroll", [cat]), ("look at face", [ann]), ("look", [cat]),
        ("list", [ann, ben, cat]), ("change", [cat]), ("merge", [ann, ben]), ("forget", [cat]),
    ]  # fmt: skip
    assert done[6]["changed"] == ["consent"]
    text = path.read_text()
    for word in ("Ann", "Ben", "Cat", "form 7", "wwww"):
        assert word not in text


def test_a_change_is_announced_before_it_happens(client, path, draw, monkeypatch):
    [ann] = enroll(client, draw, "Ann")

    def look(*_, **__):
        assert records(path)[-1]["phase"] == "begins"
        raise RuntimeError("killed here")

    monkeypatch.setattr(client.service.gallery, "forget", look)
    assert client.delete(f"/subjects/{ann}", headers=WRITER).status_code == 500
    assert [(r["event"], r.get("phase"), r.get("status")) for r in records(path)[-2:]] == [
        ("forget", "begins", None), ("forget", None, 500),
    ]  # fmt: skip


def test_expiry_and_the_service_itself_are_events(start, path, draw):
    service = start(audit=path, sweep_seconds=0.05)
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        days = str(0.3 / 86_400)
        data = {"name": "Rosa", "retention_days": days}
        number = client.post("/enroll", files={"pictures": draw.jpeg(draw.RED)}, data=data).json()["subject"]["id"]
        for _ in range(400):
            if records(path, "expire"):
                break
            client.get("/healthz")
    service.server.should_exit = True
    service.thread.join(20)
    assert records(path)[0]["event"] == "start"
    assert records(path)[-1]["event"] == "stop"
    assert [r["subjects"] for r in records(path, "expire")] == [[number]]


@contextmanager
def full_disk(path):
    """No file of this process may grow beyond this one's size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nothing_is_answered_that_cannot_be_written(client, path, draw, caplog):
    [ann] = enroll(client, draw, "Ann")
    with path.open("ab") as file:  # larger than the gallery's files, which must not be the ones that fail
        file.write(b'{"padding": "' + b"x" * 4_000_000 + b'"}\n')
    client.get("/subjects", headers=READER)
    with full_disk(path):
        answers = [
            client.delete(f"/subjects/{ann}", headers=WRITER),
            client.get("/subjects", headers=READER),
            client.post("/identify", files={"picture": draw.jpeg(draw.RED)}, headers=READER),
            client.get("/subjects"),
        ]
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("the audit log cannot be written")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert sum("cannot be written" in record.message for record in caplog.records) <= 2  # not a line a request
    assert client.get(f"/subjects/{ann}", headers=READER).status_code == 200  # was not forgotten
    assert client.get("/readyz").status_code == 200
    assert [r["status"] for r in records(path, "forget") if "status" in r] == [503]


def test_a_service_without_its_log_does_not_start(start, tmp_path):
    for path in (tmp_path, tmp_path / "none" / "a", "/dev/full"):
        with pytest.raises(AuditError, match="cannot be written"):
            start(audit=path)


def test_a_log_deleted_under_the_service_is_made_again_and_the_gap_shows(client, path, draw):
    client.get("/subjects", headers=READER)
    os.unlink(path)
    client.get("/subjects", headers=READER)
    assert [r["number"] for r in records(path)] == [3]
    assert check_audit([path]).findings == [f"records 1 to 2 are missing before {path}:1"]


def test_what_the_end_of_the_service_cuts_off_is_written(start, path, draw, monkeypatch, caplog):
    service = start(audit=path)
    service.server.config.timeout_graceful_shutdown = 1
    begun = threading.Event()

    def slow(*_, **__):
        begun.set()
        time.sleep(2.5)
        return {}

    monkeypatch.setattr(service.app.state.service.handlers, "verify", slow)
    answers = []

    def ask():
        pair = {"reference": draw.jpeg(draw.RED), "probe": draw.jpeg(draw.RED)}
        answers.append(httpx.post(f"{service.url}/verify", files=pair, timeout=30, trust_env=False).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    begun.wait(10)
    service.server.should_exit = True
    service.thread.join(20)
    asking.join()
    assert answers == [503]
    assert [(r["event"], r.get("status")) for r in records(path)] == [("start", None), ("verify", 503), ("stop", None)]
    assert not [r for r in caplog.records if r.exc_info]
    assert check_audit([path]).findings == []
