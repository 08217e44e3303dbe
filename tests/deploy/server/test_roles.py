"""Roles: what each may ask and learns; tokens of the environment and of a file, rotated while the service runs."""

import json
import os

import pytest

from visavis.deploy.server.roles import ROLES, may, read_token_file, tokens_from_environment
from visavis.errors import DataError

TOKENS = {role[0] * 24: role for role in ROLES}


def bearer(role):
    return {"Authorization": f"Bearer {role[0] * 24}"}


def test_every_role_may_what_the_one_before_it_may(connect, draw, tmp_path):
    client = connect(tokens=TOKENS, audit=tmp_path / "audit.jsonl")
    image = draw.jpeg(draw.RED)
    asks = {
        "match": [
            ("POST", "/verify", {"files": {"reference": image, "probe": image}}),
            ("POST", "/identify", {"files": {"picture": image}}),
            ("GET", "/model", {}),
        ],
        "read": [
            ("POST", "/embed", {"files": {"pictures": image}}),
            ("GET", "/subjects", {}),
            ("GET", "/subjects/1", {}),
            ("GET", "/subjects/1/crop", {}),
            ("GET", "/metrics", {}),
        ],
        "write": [
            ("POST", "/enroll", {"files": {"pictures": image}, "data": {"name": "Rosa"}}),
            ("PATCH", "/subjects/1", {"json": {"consent": "form 7"}}),
            ("POST", "/subjects/1/merge", {"json": {"ids": [9]}}),
            ("DELETE", "/subjects/1", {}),
            ("POST", "/forget", {"json": {"ids": [1]}}),
        ],
        "admin": [("GET", "/audit", {})],
    }
    paths = client.get("/openapi.json").json()["paths"]
    asked = {(m, p.replace("1", "{number}")) for routes in asks.values() for m, p, _ in routes}
    assert asked == {(m.upper(), p) for p, ms in paths.items() for m, r in ms.items() if r["x-role"] != "anybody"}
    for needs, routes in asks.items():
        for method, path, options in routes:
            assert client.request(method, path, **options).status_code == 401
            for role in ROLES:
                answer = client.request(method, path, headers=bearer(role), **options)
                if may(role, needs):
                    assert answer.status_code in (200, 404), (role, path, answer.text)
                else:
                    assert answer.status_code == 403
                    assert answer.json()["error"] == f"this token's role is {role!r}; this wants {needs!r}"


def test_the_scheme_is_written_as_one_likes(connect):
    client = connect(tokens=TOKENS)
    for value in ("Bearer ", "bearer ", "BEARER  "):
        assert client.get("/model", headers={"Authorization": value + "m" * 24}).status_code == 200
    for value in ("", "Basic ", "Token ", "Bearer Bearer "):
        assert client.get("/model", headers={"Authorization": value + "m" * 24}).status_code == 401


def test_the_description_says_what_errors_are_and_how_a_token_is_sent(connect):
    api = connect(tokens=TOKENS).get("/openapi.json").json()
    assert api["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in api["components"]["schemas"]
    for methods in api["paths"].values():
        for route in methods.values():
            assert route["security"] == ([] if route["x-role"] == "anybody" else [{"token": []}])
            [content] = route["responses"]["default"]["content"].values()
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}


def test_refused_roles_count_towards_the_rate(connect):
    client = connect(tokens=TOKENS, rate=3)
    answers = [client.post("/forget", json={"ids": [1]}, headers=bearer("read")).status_code for _ in range(6)]
    assert answers == [403] * 3 + [429] * 3


def test_match_learns_decisions_only(connect, draw):
    client = connect(tokens=TOKENS)
    for name, color in (("Rosa", draw.RED), ("Pinka", draw.PINK)):
        files = {"pictures": draw.jpeg(color)}
        client.post("/enroll", files=files, data={"name": name, "consent": "form 7"}, headers=bearer("write"))
    crowd = {"picture": draw.jpeg(draw.RED, draw.GREEN, size=(220, 420), seed=5)}
    pair = {"reference": draw.jpeg(draw.RED), "probe": draw.jpeg(draw.PINK)}
    said = client.post("/identify", files=crowd, headers=bearer("match"))
    whole = client.post("/identify", files=crowd, headers=bearer("read"))
    for face, more in zip(said.json()["faces"], whole.json()["faces"], strict=True):
        assert set(face) == {"match", "decided", "threshold", "fmr", "face"}
        if more["match"] is None:
            assert face["match"] is None
        else:
            assert face["match"] == {
                "id": more["match"]["id"], "similarity": round(more["match"]["similarity"], 2)
            }  # fmt: skip
    assert any(face["match"] for face in said.json()["faces"])
    verified = client.post("/verify", files=pair, headers=bearer("match")).json()
    similarity = client.post("/verify", files=pair, headers=bearer("read")).json()["similarity"]
    assert verified["similarity"] == round(similarity, 2) != similarity
    assert not {"probability", "distance"} & set(verified)
    for text in (said.text, json.dumps(verified)):
        assert not any(word in text for word in ("Rosa", "Pinka", "form 7", "embedding"))
    top = client.post("/identify", files=crowd, data={"top": "9"}, headers=bearer("match"))
    assert (top.status_code, "top wants 'read'" in top.json()["error"]) == (403, True)
    for field in ("threshold", "fmr"):  # trying thresholds would find the similarity
        answer = client.post("/verify", files=pair, data={field: "0.001"}, headers=bearer("match"))
        assert answer.status_code == 403
        assert client.post("/verify", files=pair, data={field: "0.001"}, headers=bearer("read")).status_code == 200
    assert client.get("/model", headers=bearer("match")).json()["role"] == "match"


def test_admin_reads_the_audit_log(connect, tmp_path):
    client = connect(tokens=TOKENS, audit=tmp_path / "audit.jsonl")
    client.get("/subjects", headers=bearer("read"))
    answer = client.get("/audit", params={"limit": 1}, headers=bearer("admin")).json()
    assert [record["event"] for record in answer["records"]] == ["list"]
    assert answer["last"] == {key: answer["records"][0][key] for key in ("number", "digest")}
    assert client.get("/audit", headers=bearer("admin")).json()["records"][-1]["event"] == "look at audit"
    assert connect().get("/audit").status_code == 404


def test_tokens_of_a_file_are_rotated_without_a_restart(connect, tmp_path, caplog):
    file = tmp_path / "tokens"
    file.write_text(f"# doors\nread {'a' * 24} front door\nmatch {'b' * 24}  # back door\n\nread {'c' * 24}\n")
    file.chmod(0o600)
    client = connect(token_file=file, tokens={"w" * 24: "write"})

    def status(letter, path="/subjects"):
        return client.get(path, headers={"Authorization": f"Bearer {letter * 24}"}).status_code

    assert [status(letter) for letter in "abcwx"] == [200, 403, 200, 200, 401]
    fresh = tmp_path / "fresh"
    fresh.write_text(f"read {'x' * 24}\nread {'c' * 24}\n")
    os.replace(fresh, file)
    assert [status(letter) for letter in "abcwx"] == [401, 401, 200, 200, 200]
    for broken in ("", "# nobody\n", "read short\n", f"reed {'y' * 24}\n", "read\n", f"admin {'w' * 24}\n"):
        file.write_text(broken)  # in place, and wrong: what was valid stays so, and nothing opens
        assert [status(letter) for letter in "acxwy"] == [401, 200, 200, 200, 401], broken
    file.unlink()
    assert [status(letter) for letter in "acx"] == [401, 200, 200]
    metrics = client.get("/metrics", headers={"Authorization": f"Bearer {'x' * 24}"}).text
    assert "visavis_token_file_sound 0.0" in metrics
    assert client.get("/subjects").status_code == 401
    assert sum("stay as they were" in record.message for record in caplog.records) == 7
    assert "y" * 24 not in caplog.text
    file.write_text(f"read {'z' * 24}\n")
    assert [status(letter) for letter in "cxz"] == [401, 401, 200]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("read\n", ":1: expected: ROLE TOKEN"),
        (f"\nraed {'s' * 24}\n", ":2: unknown role 'raed'; did you mean 'read'?"),
        (f"{'s' * 24} read\n", ":1: expected: ROLE TOKEN"),
        ("read secret\n", "16 characters"),
        (f"read {'s' * 24}\nwrite {'s' * 24}\n", "two roles"),
    ],
)
def test_a_wrong_token_file_is_explained_without_a_token(tmp_path, text, said):
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(DataError) as error:
        read_token_file(file)
    assert said in str(error.value)
    assert "s" * 3 not in str(error.value)
    with pytest.raises(DataError, match="cannot read the tokens"):
        read_token_file(tmp_path / "none")


def test_a_file_everybody_can_read_is_warned_of(connect, tmp_path, caplog):
    file = tmp_path / "tokens"
    file.write_text(f"read {'a' * 24}\n")
    file.chmod(0o644)
    connect(token_file=file)
    assert "chmod 600" in caplog.text


def test_roles_of_the_environment(monkeypatch):
    for variable, tokens in (("MATCH_", "m"), ("READ_", "rs"), ("WRITE_", "w"), ("", "t"), ("ADMIN_", "a")):
        monkeypatch.setenv(f"VISAVIS_{variable}TOKEN", " , ".join(token * 24 for token in tokens))
    roles = {token[0]: role for token, role in tokens_from_environment().items()}
    assert roles == {"m": "match", "r": "read", "s": "read", "w": "write", "t": "write", "a": "admin"}
    monkeypatch.setenv("VISAVIS_READ_TOKEN", "a" * 24)
    with pytest.raises(DataError, match="two roles"):
        tokens_from_environment()
