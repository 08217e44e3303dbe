"""visavis validate: hashes and bands, duplicates inside and across, leaks, label errors, the page."""

import json

import numpy as np
import pytest
from face_like import altered, face_like, put
from paths import SHARED

from visavis.cli import main
from visavis.data.sources import open_source
from visavis.data.validate.validation import validate
from visavis.vision import images


def test_everything_planted_is_found_and_nothing_else(messy):
    facts = validate(open_source(messy)).to_json()
    assert facts["identical"]["across"] == [["P1/stolen.jpg", "P5/15.jpg"]]
    assert facts["identical"]["inside"] == [["P0/0.jpg", "P0/again.jpg"]]
    assert [set(m["pictures"]) for m in facts["similar"]["across"]] == [{"P3/across.jpg", "P7/21.jpg"}]
    assert [set(m["pictures"]) for m in facts["similar"]["inside"]] == [{"P2/6.jpg", "P2/inside.jpg"}]
    assert [u["picture"] for u in facts["unreadable"]] == ["P4/cut.jpg"]
    assert facts["unreadable"][0]["reason"].startswith("damaged or truncated picture")
    assert facts["skipped"] == [["P4/notes.txt", "not a picture"]]
    assert (facts["pictures"], facts["identities"], facts["per_identity"]["single"]) == (36, 11, 1)
    assert facts["sizes"] == {"112x112": 35}
    assert not facts["ok"]
    assert len(facts["problems"]) == 3


def test_workers_find_the_same(messy):
    source = open_source(messy)
    assert validate(source, workers=2).to_json() == validate(source).to_json()


def test_leaks_into_another_set(messy, tmp_path):
    other = tmp_path / "other"
    put(other, "P9", "x.jpg", images.encode(face_like(200), ".jpg"))
    put(other, "Q", "same.jpg", (messy / "P6" / "18.jpg").read_bytes())
    put(other, "R", "like.jpg", images.encode(altered(face_like(24), "jpeg"), ".jpg"))
    against = validate(open_source(messy), against=open_source(other)).to_json()["against"]
    assert against["identities"] == ["P9"]
    assert against["identical"] == [["P6/18.jpg", "Q/same.jpg"]]
    assert [m["pictures"] for m in against["similar"]] == [["P8/24.jpg", "R/like.jpg"]]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_people_shared_by_embedding(messy, tmp_path):
    other = tmp_path / "other"
    for k in range(3):
        put(other, f"Q{k}", "x.jpg", images.encode(face_like(300 + k), ".jpg"))
    source, against = open_source(messy), open_source(other)
    rng = np.random.default_rng(1)
    embeddings, theirs = unit(rng.normal(size=(36, 256))), unit(rng.normal(size=(3, 256)))
    theirs[2] = embeddings[35]
    findings = validate(source, against=against, embeddings=embeddings, against_embeddings=theirs)
    assert findings.to_json()["against"]["people"] == [{"identities": ["Solo", "Q2"], "similarity": 1.0}]


def test_command_line_and_page(messy, tmp_path, capsys):
    arguments = ["validate", str(messy), "--workers", "1"]
    assert main([*arguments, "--json", str(tmp_path / "v.json"), "--html", str(tmp_path / "v.html")]) == 1
    out = capsys.readouterr().out
    assert "wrong: 1 unreadable pictures" in out
    assert "identical: P1/stolen.jpg = P5/15.jpg" in out
    assert json.loads((tmp_path / "v.json").read_text())["pictures"] == 36
    page = (tmp_path / "v.html").read_text()
    assert "P4/cut.jpg" in page
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") == 3
    (tmp_path / "who.txt").write_text("P8\nP9\n")
    assert main([*arguments, "--only", str(tmp_path / "who.txt")]) == 0
    assert "nothing wrong" in capsys.readouterr().out


@pytest.mark.slow
def test_known_duplicates_of_lfw():

    shared = SHARED / "lfw-dev"
    if not shared.is_dir():
        pytest.skip("needs ../shared/lfw-dev")
    facts = validate(open_source(shared), workers=2).to_json()
    pairs = {tuple(sorted(name.split("/")[0] for name in group)) for group in facts["identical"]["across"]}
    pairs |= {tuple(sorted(name.split("/")[0] for name in m["pictures"])) for m in facts["similar"]["across"]}
    assert pairs == {
        ("Bart_Hendricks", "Ricky_Ray"),
        ("Carlos_Beltran", "Raul_Ibanez"),
        ("Andrew_Caldecott", "Andrew_Gilligan"),
        ("Gabrielle_Rose", "Martha_Bowen"),
        ("Emmy_Rossum", "Eva_Amurri"),
    }


def test_a_result_that_cannot_be_written_is_one_line(tmp_path, capsys):
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / "src" / name).parent.mkdir(parents=True)
        images.write(tmp_path / "src" / name, np.random.default_rng(len(name)).integers(0, 256, (40, 40, 3), np.uint8))
    (tmp_path / "file").write_text("")
    assert main(["validate", str(tmp_path / "src"), "--workers", "1", "--json", str(tmp_path / "file" / "x.json")]) == 2
    said = capsys.readouterr().err
    assert "cannot write" in said
    assert said.count("\n") == 1
