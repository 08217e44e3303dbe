"""Nothing a client sends is ignored: unknown fields, parameters and keys are named, and no error repeats a payload."""

import base64

import httpx
import pytest


@pytest.fixture
def client(start):
    service = start()
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        yield client


def said(answer, status=400):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


def test_unknown_form_fields_are_named(client, draw):
    image = {"picture": draw.jpeg(draw.RED)}
    assert "did you mean 'threshold'" in said(client.post("/identify", files=image, data={"treshold": "0.99"}))
    assert "did you mean 'picture'" in said(client.post("/identify", files={"pictures": draw.jpeg(draw.RED)}))
    assert "unknown field 'top'" in said(
        client.post("/verify", files={"reference": b"", "probe": b""}, data={"top": "3"})
    )
    assert "'threshold' is text, got a file" in said(client.post("/identify", files=image | {"threshold": b"0.5"}))
    twice = [("name", (None, "a")), ("name", (None, "b")), ("pictures", ("x", draw.jpeg(draw.RED)))]
    assert "'name' is there twice" in said(client.post("/enroll", files=twice))
    assert "'picture' is there twice" in said(client.post("/identify", files=[("picture", b"1"), ("picture", b"2")]))


def test_values_are_taken_as_they_are_or_refused(client, draw):
    image = {"picture": draw.jpeg(draw.RED)}
    for name, value in (
        ("top", "0"), ("top", "51"), ("top", "2.5"), ("aligned", "maybe"), ("crops", "2"), ("threshold", "1.01"),
        ("threshold", "-1.01"), ("threshold", "1_0"), ("threshold", "٣"), ("fmr", "-0.1"), ("fmr", "1.1"),
    ):  # fmt: skip
        assert name in said(client.post("/identify", files=image, data={name: value})), value
    for name, value in (("top", "1"), ("top", "50"), ("aligned", "0"), ("threshold", "1"), ("threshold", "-1")):
        assert client.post("/identify", files=image, data={name: value}).status_code == 200, value
    assert "exclude" in said(client.post("/identify", files=image, data={"fmr": "1e-3", "threshold": "0.5"}))
    long = {"name": "Rosa", "consent": "c" * 4001}
    assert "4,000 characters" in said(client.post("/enroll", files={"pictures": draw.jpeg(draw.RED)}, data=long))


def test_unknown_query_parameters_are_named(client, draw):
    files = {"reference": draw.jpeg(draw.RED), "probe": draw.jpeg(draw.RED)}
    assert "field of the form" in said(client.post("/verify?threshold=0.99", files=files))
    assert "did you mean 'limit'" in said(client.get("/subjects?limits=3"))
    assert "'limit' is there twice" in said(client.get("/subjects?limit=1&limit=2"))
    assert "'query' is no UTF-8" in said(client.get("/subjects?query=%ff%fe"))
    for path in ("/model?x=1", "/healthz?x=1", "/metrics?x=1", "/subjects/1?x=1"):
        assert "takes none" in said(client.get(path))
    assert client.get("/?from=mail").status_code == 200  # a page is a page


def test_unknown_and_repeated_json_keys_are_named(client):
    assert "did you mean 'retention_days'" in said(client.patch("/subjects/1", json={"retention_day": 3}))
    assert "did you mean 'names'" in said(client.post("/forget", json={"ids": [1], "name": ["Rosa"]}))
    assert "unknown key 'id'" in said(client.post("/subjects/1/merge", json={"id": 77}))
    body = {"content": b'{"names": ["a"], "names": ["b"]}', "headers": {"Content-Type": "application/json"}}
    assert "'names' is there twice" in said(client.post("/forget", **body))


def test_a_body_nobody_takes_is_refused(client):
    assert "takes no body" in said(client.request("DELETE", "/subjects/1", json={"ids": [2]}))
    assert "takes no body" in said(client.request("GET", "/subjects", content=iter([b"x"])))
    assert client.request("DELETE", "/subjects/1", content=b"").status_code == 404
    text = {"content": b'{"ids": [1]}', "headers": {"Content-Type": "text/plain"}}
    assert "expected application/json, got text/plain" in said(client.post("/forget", **text), 415)
    assert "got nothing" in said(client.post("/forget", content=b'{"ids": [1]}'), 415)


def test_pictures_in_json_or_text_are_refused_with_an_example(client, draw):
    data = base64.b64encode(draw.jpeg(draw.RED, size=(200, 200), side=40)).decode()
    url = f"data:image/png;base64,{data}"
    answers = [
        client.post("/identify", json={"picture": data[:20_000]}),
        client.post("/identify", json={"picture": url + "A" * 70_000}),
        client.post("/identify", data={"picture": url[:20_000]}),
        client.post("/identify", files={"picture": (None, url[:20_000])}),
        client.post("/identify", files={"picture": (None, url + "A" * 70_000)}),
    ]
    assert [answer.status_code for answer in answers] == [415, 413, 415, 400, 400]
    for answer in answers:
        assert "curl -F picture=@photo.jpg" in answer.json()["error"]
        assert data[:30] not in answer.text
        assert len(answer.text) < 400


def test_no_error_repeats_what_was_sent(client, draw):
    long = "x" * 20_000
    image = {"picture": draw.jpeg(draw.RED)}
    answers = [
        client.post("/identify", files=image, data={long: "1"}),
        client.post("/identify", files=image, data={"threshold": long}),
        client.post("/identify", files=image, data={"aligned": long}),
        client.get("/subjects", params={long: "1"}),
        client.get("/subjects", params={"limit": long}),
        client.get("/subjects", params={"query": long}),
        client.post("/forget", json={long: 1}),
        client.post("/forget", json={"ids": [long]}),
        client.post("/forget", json={"names": [long]}),
        client.post("/forget", content=long, headers={"Content-Type": "application/json"}),
        client.post("/forget", json={"names": {"a": long}}),
        client.patch("/subjects/1", json={"name": long}),
        client.post("/identify", content=b"", headers={"Content-Type": long}),
    ]
    for i, answer in enumerate(answers):
        assert 400 <= answer.status_code < 500, i
        assert "x" * 201 not in answer.text, i  # a name may have 200 characters
