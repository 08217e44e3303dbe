"""First who, then what: a request is parsed when its sender is admitted, and every answer is guarded."""

import json
import logging
import socket
import threading
import time

import httpx
import pytest

from visavis.deploy.server import guard

TOKENS = {"w" * 24: "write", "r" * 24: "read"}
WRITER = {"Authorization": "Bearer " + "w" * 24}


@pytest.fixture
def make(start):
    """A service and a client of it."""
    opened = []

    def build(**settings):
        service = start(**settings)
        client = httpx.Client(base_url=service.url, trust_env=False, timeout=30)
        client.service = service
        client.shared = service.app.state.service
        opened.append(client)
        return client

    yield build
    for client in opened:
        client.close()


def address(client):
    return client.base_url.host, client.base_url.port


def exchange(client, *parts, wait=5.0):
    """Send raw bytes, return all that comes back."""
    with socket.create_connection(address(client), timeout=wait) as raw:
        for part in parts:
            raw.sendall(part)
        answer = b""
        while data := raw.recv(65_536):
            answer += data
        return answer


def test_every_route_says_whom_it_admits(make):
    client = make(tokens=TOKENS)
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, route in methods.items():
            role = route["x-role"]
            answer = client.request(method, path.replace("{number}", "1"))
            assert (answer.status_code == 401) == (role != "anybody"), (method, path)


@pytest.mark.parametrize("body", [b"{", b'{"ids":"x"}', b"\xff" * 100])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/forget"), ("PATCH", "/subjects/1"), ("POST", "/subjects/1/merge")]
)
def test_a_body_is_not_parsed_before_its_sender_is_known(make, method, path, body):
    client = make(tokens=TOKENS)
    headers = {"Content-Type": "application/json"}
    assert client.request(method, path, content=body, headers=headers).status_code == 401
    assert client.request(method, path, content=body, headers=headers | WRITER).status_code in (400, 404, 422)


def test_json_may_have_64_kilobytes_announced_or_not(make):
    client = make(tokens=TOKENS)
    fits = b'{"names":["' + b"x" * (65_536 - 14) + b'"]}'
    headers = WRITER | {"Content-Type": "application/json"}
    assert client.post("/forget", content=fits, headers=headers).status_code != 413
    assert client.post("/forget", content=fits[:-3] + b'y"]}', headers=headers).status_code == 413
    answer = client.post("/forget", content=(fits[i : i + 8192] for i in range(0, 65_536, 8192)), headers=headers)
    assert answer.status_code != 413
    answer = client.post("/forget", content=(fits for _ in range(3)), headers=headers)
    assert answer.status_code == 413
    assert "65,536 bytes" in answer.json()["error"]


@pytest.mark.parametrize("number", [str(2**63), "9" * 20, "9" * 5000, "-1", "true"], ids=lambda n: n[:6])
def test_numbers_no_store_counts_to_are_the_clients_fault(make, number):
    client = make()
    ids = {"content": f'{{"ids":[{number}]}}', "headers": {"Content-Type": "application/json"}}
    answers = [
        *(client.request(m, f"/subjects/{number}", json={}) for m in ("GET", "DELETE", "PATCH")),
        client.get(f"/subjects/{number}/crop"),
        client.get("/subjects", params={"offset": number}),
        client.post("/forget", **ids),
        client.post("/subjects/1/merge", **ids),
    ]
    assert [a.status_code // 100 for a in answers] == [4] * len(answers)
    assert client.get(f"/subjects/{2**63 - 1}").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "[::1"}, {"Host": "127.0.0.1:99999"}, {"Host": "127.0.0.1:abc"}, {"Origin": "http://["},
     {"Host": "evil.example@127.0.0.1"}, {"Origin": "http://a@127.0.0.1"}],
)  # fmt: skip
def test_a_malformed_host_or_origin_is_a_bad_request(make, headers):
    answer = make().get("/subjects", headers=headers)
    assert answer.status_code == 400
    assert "is no address" in answer.json()["error"]


def test_a_browser_that_says_it_was_sent_from_elsewhere_is_refused(make):
    client = make()
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.get("/subjects", headers={"Sec-Fetch-Site": site}).status_code == status
    own = {"Sec-Fetch-Site": "same-origin", "Origin": str(client.base_url)}
    assert client.post("/forget", json={"ids": [1]}, headers=own).status_code == 404


def test_safe_headers_on_every_answer_and_a_fault_is_logged_once(make, monkeypatch, caplog):
    client = make(rate=8)

    def fail(*_):
        raise RuntimeError("boom at /secret/path")

    monkeypatch.setattr(client.service.gallery, "subject", fail)
    caplog.set_level(logging.INFO)
    answers = [client.get("/subjects/1"), client.get("/nowhere"), client.post("/identify"), client.get("/"),
               client.post("/forget", content=b"x" * 70_000), client.get("/subjects", headers={"Origin": "null"}),
               *[client.get("/subjects") for _ in range(9)]]  # fmt: skip
    assert {500, 404, 415, 200, 413, 403, 429} <= {a.status_code for a in answers}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.status_code
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
    assert answers[0].json() == {"error": "internal error; the service's log says more"}
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1


def test_a_client_that_hangs_up_is_499_and_one_line(make, caplog):
    client = make(tokens=TOKENS)
    caplog.set_level(logging.INFO)
    for path, kind in (("forget", "application/json"), ("identify", "multipart/form-data; boundary=b")):
        head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 999\r\n"
        with socket.create_connection(address(client)) as raw:
            raw.sendall(f"{head}Authorization: {WRITER['Authorization']}\r\n\r\n--b\r\n".encode())
            time.sleep(0.1)
    until(lambda: client.get("/metrics", headers=WRITER).text.count('status="499"} 1.0') == 2)
    said = [r for r in caplog.records if r.name.startswith(("visavis", "uvicorn"))]
    assert [r.getMessage().partition(": ")[2] for r in said] == [
        "POST /forget: the client hung up", "POST /identify: the client hung up",
    ]  # fmt: skip
    assert not any(r.exc_info for r in said)


def until(true, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_body_that_comes_too_slowly_is_given_up(make, monkeypatch):
    monkeypatch.setattr(guard, "_BODY_GRACE", 0.4)
    monkeypatch.setattr(guard, "_DRAIN_SECONDS", 0.1)
    client = make()
    head = b"POST /forget HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    begun = time.monotonic()
    answer = exchange(client, head)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert 0.4 <= time.monotonic() - begun < 3


def test_health_asks_neither_worker_nor_gallery(make, monkeypatch):
    client = make(workers=1, waiting=0)
    gate, here = threading.Event(), threading.Event()

    def busy(*_, **__):
        here.set()
        gate.wait(20)
        return []

    monkeypatch.setattr(client.service.gallery, "subjects", busy)
    assert client.get("/readyz").json() == {"status": "ready"}
    time.sleep(1.1)  # readiness is looked at once a second
    thread = threading.Thread(target=lambda: httpx.get(f"{client.service.url}/subjects", trust_env=False, timeout=30))
    thread.start()
    try:
        assert here.wait(10)
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 503
    finally:
        gate.set()
        thread.join()


def test_what_the_end_of_the_service_cuts_off_is_told_to_come_again(make, monkeypatch):
    client = make()
    gate, answers = threading.Event(), []
    monkeypatch.setattr(client.service.gallery, "subjects", lambda *_, **__: gate.wait(20) and [])
    client.service.server.config.timeout_graceful_shutdown = 0.3
    thread = threading.Thread(
        target=lambda: answers.append(httpx.get(f"{client.service.url}/subjects", trust_env=False, timeout=30))
    )
    thread.start()
    time.sleep(0.3)
    client.service.server.should_exit = True
    thread.join(10)
    gate.set()
    assert answers[0].status_code == 503
    assert answers[0].headers["retry-after"] == "5"
    assert "shutting down" in json.loads(answers[0].text)["error"]


def test_half_a_surrogate_pair_is_no_name(make):
    client = make()
    headers = {"Content-Type": "application/json"}
    for method, path, body in (
        ("POST", "/forget", rb'{"names":["\ud800"]}'),
        ("PATCH", "/subjects/1", rb'{"consent":"a\udfffb"}'),
        ("POST", "/subjects/1/merge", rb'{"names":["x", "\ud800"]}'),
    ):
        answer = client.request(method, path, content=body, headers=headers)
        assert answer.status_code == 422, path
        assert answer.json()["error"].startswith("body.")
    whole = rb'{"names":["\ud83d\ude00"]}'
    assert client.post("/forget", content=whole, headers=headers).status_code == 404
