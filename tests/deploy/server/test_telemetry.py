"""What Prometheus reads of the model, and the names of requests."""

import ipaddress
import json
import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from visavis.deploy.client import Client, ServiceError


def scrape(client):
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            samples[(sample.name.removeprefix("visavis_"), *sorted(sample.labels.items()))] = sample.value
    return samples


def of(samples, metric, **labels):
    return sum(v for (n, *found), v in samples.items() if n == metric and labels.items() <= dict(found).items())


def test_similarity_quality_reasons_and_the_share_of_unknown(connect, draw, recognizer):
    client = connect()
    digest = recognizer.identity.digest[:12]
    client.post("/enroll", files={"pictures": draw.jpeg(draw.RED)}, data={"name": "Rosa"})
    crowd = draw.jpeg(draw.RED, draw.GREEN, draw.BLUE, draw.GREEN, size=(220, 800))
    assert len(client.post("/identify", files={"picture": crowd}).json()["faces"]) == 4
    pair = {"reference": draw.jpeg(draw.RED), "probe": draw.jpeg(draw.BLUE)}
    similarity = client.post("/verify", files=pair).json()["similarity"]
    client.post("/embed", files={"pictures": draw.jpeg(draw.RED, side=12)})
    found = scrape(client)
    assert of(found, "decisions_total", model=digest, task="identify", outcome="match") == 1
    assert of(found, "decisions_total", task="identify", outcome="unknown") == 3
    assert of(found, "decisions_total", task="verify", outcome="no match") == 1
    assert of(found, "unknown_share", model=digest) == 0.75
    assert of(found, "similarity_count", task="identify") == 4
    assert -0.4 < similarity < -0.2  # below the lowest bound; red and blue lie far apart
    assert of(found, "similarity_bucket", task="verify", le="-0.2") == 1
    assert of(found, "similarity_bucket", task="identify", le="0.95") == 3
    assert of(found, "similarity_bucket", task="identify", le="1.0") == 4
    assert of(found, "face_quality_count", task="verify") == 2
    assert of(found, "face_reasons_total", model=digest, task="embed", reason="face too small") == 1
    assert of(found, "model_info", model=digest, name="colors") == 1
    assert of(found, "requests_total", route="/identify", status="200") == 1
    assert of(found, "request_seconds_count", route="/identify") == 1
    assert of(found, "subjects") == 1
    assert not any("Rosa" in str(key) for key in found)


def test_undecided_faces_are_no_unknowns(connect, draw, recognizer, card):
    recognizer.card = card.with_changes(thresholds={})
    client = connect()
    client.post("/identify", files={"picture": draw.jpeg(draw.RED)})
    found = scrape(client)
    assert of(found, "decisions_total", outcome="undecided") == 1
    assert of(found, "unknown_share") == 0


def test_two_services_in_a_process_count_for_themselves(connect, draw):
    first, second = connect(), connect()
    first.get("/model")
    assert of(scrape(first), "requests_total", route="/model") == 1
    assert of(scrape(second), "requests_total", route="/model") == 0


def test_a_request_has_a_name_in_its_answer_the_log_and_the_audit_log(connect, monkeypatch, caplog, tmp_path):
    client = connect(audit=tmp_path / "audit.jsonl")
    caplog.set_level(logging.INFO)

    def fail(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr(client.service.gallery, "subjects", fail)
    names = [client.get(path).headers["x-request-id"] for path in ("/subjects", "/nowhere", "/", "/healthz")]
    assert len(set(names)) == 4
    assert f"request {names[0]}: GET /subjects failed" in caplog.text
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [r["request"] for r in records if r["event"] == "list"] == names[:1]
    with Client(str(client.base_url)) as python, pytest.raises(ServiceError, match=r"500: .*request [0-9a-f]{16} in"):
        python.subjects()
    forged = client.get("/healthz", headers={"X-Request-ID": "forged-by-a-client"})
    assert forged.headers["x-request-id"] != "forged-by-a-client"


def test_a_trusted_proxy_names_requests(connect):
    client = connect(tokens={"r" * 24: "read"}, trusted_proxies=(ipaddress.ip_network("127.0.0.1"),))
    for given, kept in (("4711-from-nginx", True), ("short", False), ("x" * 65, False), ('evil", "a": "b', False)):
        answer = client.get("/healthz", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept
