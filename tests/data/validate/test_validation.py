"""visavis validate: hashes and bands, duplicates inside and across, leaks, label errors, the page."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SHARED

from visavis.cli import main
from visavis.data.contact_sheets import caption_lines, contact_sheet
from visavis.data.sources import open_source
from visavis.data.validate.duplicates import bucket_search, choices_of, close_hashes, equal_bytes, perceptual_hashes
from visavis.data.validate.fingerprints import feature_of
from visavis.data.validate.label_errors import match_threshold, review_labels
from visavis.data.validate.near_duplicates import confirm, correlation, detail_of
from visavis.data.validate.page import class_histogram, to_html
from visavis.data.validate.validation import validate
from visavis.vision import images


def face_like(seed: int, size: int = 112) -> np.ndarray:
    """A smooth picture with detail of its own over an outline all share, as aligned faces have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    shared = 120 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) * 6)[..., None]
    coarse = images.resize(rng.integers(0, 90, (7, 7, 3), dtype=np.uint8), (size, size)).astype(float)
    fine = images.resize(rng.integers(0, 60, (28, 28, 3), dtype=np.uint8), (size, size)).astype(float)
    return np.clip(shared + coarse + fine, 0, 255).astype(np.uint8)


def altered(picture: np.ndarray, how: str) -> np.ndarray:
    if how == "jpeg":
        return images.decode(images.encode(picture, ".jpg", quality=40))
    if how == "brighter":
        return np.clip(picture.astype(float) * 1.15 + 10, 0, 255).astype(np.uint8)
    if how == "smaller":
        return images.resize(picture, (72, 72))
    return images.resize(np.ascontiguousarray(picture[4:-2, 3:-3]), (112, 112))  # cropped


def test_hashes_of_one_picture_are_close_and_of_others_far():
    pictures = [face_like(k) for k in range(60)]
    changed = [altered(pictures[k], how) for k, how in enumerate(("jpeg", "brighter", "smaller", "cropped"))]
    feature = np.stack([feature_of(p) for p in pictures + changed])
    valid = np.ones(64, bool)
    found = {(i, j): d for i, j, d in close_hashes(perceptual_hashes(feature, valid), valid).tolist()}
    assert set(found) == {(k, 60 + k) for k in range(4)}
    for k in range(4):
        assert correlation(detail_of(pictures[k]), detail_of(changed[k])) > 0.85
    others = [correlation(detail_of(pictures[i]), detail_of(pictures[j])) for i in range(12) for j in range(i)]
    assert max(others) < 0.7


def planted(count: int, distances: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random hashes of which the last len(distances) are others of them with so many bits turned; and of which."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (count, 2), dtype=np.uint64)
    twins = rng.permutation(count - len(distances))[: len(distances)]
    for k, (twin, distance) in enumerate(zip(twins, distances, strict=True)):
        bits = np.unpackbits(hashes[twin].view(np.uint8))
        bits[rng.choice(128, distance, replace=False)] ^= 1
        hashes[count - len(distances) + k] = np.packbits(bits).view(np.uint64)
    return hashes, twins


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([8, 11, 16]))
def test_buckets_find_close_pairs_and_only_true_ones(seed, width):
    hashes, _ = planted(60, np.random.default_rng(seed).integers(0, 13, 20), seed)
    exact = {tuple(row) for row in close_hashes(hashes, np.ones(60, bool), radius=30).tolist()}
    found = {tuple(row) for row in bucket_search(hashes, np.arange(60), radius=30, width=width).tolist()}
    assert found <= exact
    assert {row for row in exact if row[2] <= 8} <= found


def test_the_share_found_is_as_promised():
    """In 60,000 hashes: all that differ in up to 8 bits, and 95 % of those that differ in 22."""
    distances = np.repeat([2, 8, 22], 400)
    hashes, twins = planted(60_000, distances)
    steps = []
    rows = close_hashes(hashes, np.ones(60_000, bool), progress=lambda done, total: steps.append((done, total)))
    found = {(i, j) for i, j, _ in rows.tolist()}
    hit = np.array([(int(twin), 60_000 - 1200 + k) in found for k, twin in enumerate(twins)])
    assert hit[:800].all()
    assert hit[800:].mean() > 0.92
    assert len(found) == hit.sum()
    assert steps[-1] == (choices_of(16), choices_of(16))


def test_a_crowd_of_equal_hashes_does_not_cost_its_square():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (30_000, 2), dtype=np.uint64)
    hashes[:10_000] = hashes[0]
    rows = close_hashes(hashes, np.ones(30_000, bool))
    assert len(rows) <= 130 * 10_000
    assert set(rows[:, :2].ravel().tolist()) == set(range(10_000))  # each hangs on another


def test_of_one_moment_a_chain_is_found_not_every_pair(tmp_path):
    picture = face_like(3)
    for k in range(8):  # one photograph, eight encodings, one identity
        put(tmp_path / "s", "Ann", f"{k}.jpg", images.encode(picture, ".jpg", quality=60 + k))
    for k in range(3):
        put(tmp_path / "s", f"B{k}", "0.jpg", images.encode(picture, ".jpg", quality=90 + k))
    source = open_source(tmp_path / "s")
    every = np.array([(i, j, 1) for i in range(11) for j in range(i + 1, 11)])
    matches = [match for _, match in confirm(every, source) if match is not None]
    inside = [m for m in matches if source.labels[m.first] == source.labels[m.second]]
    assert len(inside) == 7
    assert len(matches) - len(inside) == 27
    assert [done for done, _ in confirm(every, source)] == list(range(1, 56))
    again = np.concatenate([every] * 80)  # later rounds leave out what hangs together already
    assert sum(m is not None and m.second < 8 for _, m in confirm(again, source, workers=2)) == 7


def test_equal_bytes_groups():
    digests = np.array([[1], [2], [1], [3], [2], [1], [9], [9]], np.uint8)
    valid = np.array([True] * 6 + [True, False])
    assert [group.tolist() for group in equal_bytes(digests, valid)] == [[0, 2, 5], [1, 4]]


def put(folder, who, name, data):
    (folder / who).mkdir(parents=True, exist_ok=True)
    (folder / who / name).write_bytes(data)


@pytest.fixture
def messy(tmp_path):
    folder = tmp_path / "set"
    for k in range(30):
        put(folder, f"P{k // 3}", f"{k}.jpg", images.encode(face_like(k), ".jpg"))
    put(folder, "P0", "again.jpg", (folder / "P0" / "0.jpg").read_bytes())
    put(folder, "P1", "stolen.jpg", (folder / "P5" / "15.jpg").read_bytes())
    put(folder, "P2", "inside.jpg", images.encode(altered(face_like(6), "cropped"), ".jpg"))
    put(folder, "P3", "across.jpg", images.encode(altered(face_like(21), "brighter"), ".jpg"))
    put(folder, "P4", "cut.jpg", (folder / "P4" / "12.jpg").read_bytes()[:900])
    put(folder, "P4", "notes.txt", b"hello")
    put(folder, "Solo", "1.jpg", images.encode(face_like(99), ".jpg"))
    return folder


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


def test_label_errors_and_split_people():
    rng = np.random.default_rng(0)
    middle = unit(rng.normal(size=(50, 128)))
    labels = np.repeat(np.arange(50), 6)
    embeddings = unit(middle[labels] + 0.05 * rng.normal(size=(300, 128)))
    embeddings[7] = unit(middle[[31]] + 0.05 * rng.normal(size=(1, 128)))[0]  # filed under 1, is 31
    embeddings[labels == 40] = unit(middle[[41] * 6] + 0.05 * rng.normal(size=(6, 128)))  # 40 and 41 are one
    embeddings[100] = np.nan
    review = review_labels(embeddings, labels, 50)
    assert (review.errors[0].index, review.errors[0].label, review.errors[0].other) == (7, 1, 31)
    assert {e.index for e in review.errors} <= {7} | set(np.flatnonzero((labels == 40) | (labels == 41)).tolist())
    assert [(p.first, p.second) for p in review.same] == [(40, 41)]
    assert 0.2 < review.threshold == match_threshold(embeddings, labels) < 0.7


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


def test_captions_keep_what_tells_pictures_apart():
    assert caption_lines("Ann_Lee/Ann_Lee_0001.jpg", 21) == ("Ann_Lee", "0001.jpg")
    long = caption_lines("Prince_Willem-Alexander_of_Orange/clip/frame_0000017.jpg", 21)
    assert all(len(line) <= 21 for line in long)
    assert long[1].endswith("17.jpg")
    assert caption_lines("own 0.31 Ann", 21) == ("own 0.31 Ann", "")
    assert contact_sheet([None] * 3, ["a"] * 3, columns=4, side=64, group=2).shape == (88, 4 * 64 + 14, 3)


def test_the_histogram_is_a_picture(messy):
    assert images.decode(class_histogram(open_source(messy))).shape[2] == 3
    assert "Nothing wrong" in to_html(validate(open_source(messy).only(["P8"])))


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
