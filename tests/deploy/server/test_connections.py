"""Connections that come slowly, say nothing, or do not read."""

import socket
import time

import httpx
import pytest

from visavis.deploy.server import connections


@pytest.fixture
def make(start):
    opened = []

    def build(**settings):
        service = start(**settings)
        client = httpx.Client(base_url=service.url, trust_env=False, timeout=30)
        client.service = service
        opened.append(client)
        return client

    yield build
    for client in opened:
        client.close()


def half_open(client, count, part):
    sockets = []
    for _ in range(count):
        raw = socket.create_connection((client.base_url.host, client.base_url.port), timeout=5)
        raw.sendall(part)
        sockets.append(raw)
    return sockets


@pytest.mark.parametrize(
    "part",
    [b"", b"GET /subjects HTTP/1.1\r\nX-a: ",
     b"POST /forget HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"],
)  # fmt: skip
def test_half_open_connections_lock_nobody_out(make, part, caplog):
    client = make(max_connections=20)
    held = half_open(client, 60, part)
    try:
        time.sleep(0.2)
        for _ in range(5):
            begun = time.monotonic()
            with httpx.Client(base_url=client.service.url, trust_env=False, timeout=5) as fresh:
                assert fresh.get("/healthz").status_code == 200
            assert time.monotonic() - begun < 2
        assert len(client.service.server.server_state.connections) <= 21
        assert not [r for r in caplog.records if r.exc_info]
    finally:
        for raw in held:
            raw.close()


def dribble(address, data):
    """Send a byte now and then."""
    with socket.create_connection(address, timeout=5) as raw:
        for value in data:
            raw.sendall(bytes([value]))
            time.sleep(0.05)


def test_a_head_that_comes_too_slowly_is_hung_up_on(make, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    client = make()
    begun = time.monotonic()
    with pytest.raises(ConnectionError):
        dribble((client.base_url.host, client.base_url.port), b"GET /subjects HTTP/1.1\r\nX-a: " * 5)
    assert 0.3 < time.monotonic() - begun < 3


def test_what_is_no_http_is_answered_like_everything_else(make):
    client = make()
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=5) as raw:
        raw.sendall(b"hello\r\n\r\n")
        answer = b""
        while data := raw.recv(9999):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in answer
    assert answer.endswith(b'{"error": "Invalid HTTP request received."}')


def test_answers_do_not_wait_for_full_segments(make):
    """With Nagle's algorithm on, an answer on a connection kept alive takes 40 ms and more."""
    client = make(rate=0)
    client.get("/healthz")
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        client.get("/subjects")
        times.append(time.perf_counter() - begun)
    assert sorted(times)[5] < 0.03


def test_a_client_that_does_not_read_is_hung_up_on(make, monkeypatch):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.5)
    client = make()
    monkeypatch.setattr(client.service.gallery, "subjects", lambda *_, **__: [])
    monkeypatch.setattr(
        "visavis.deploy.server.subject_routes.subject_json", lambda _: {"name": "x" * 20_000_000}, raising=True
    )
    monkeypatch.setattr(client.service.gallery, "subject", lambda _: None)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((client.base_url.host, client.base_url.port))
        raw.sendall(b"GET /subjects/1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        state = client.service.server.server_state
        deadline = time.monotonic() + 20
        while not state.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        begun = time.monotonic()
        while state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not state.connections
        assert time.monotonic() - begun > 0.3
