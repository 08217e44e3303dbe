"""Every protocol end to end on a tiny data set in its own layout on disk."""

import csv
import json

import numpy as np
import pytest

from visavis.errors import DataError, ProtocolError
from visavis.evaluate import evaluate
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.registry import PROTOCOLS, load_protocol
from visavis.vision import images

PEOPLE, IMAGES = 12, 4
COLORS = np.random.default_rng(0).integers(30, 226, (40, 3))


class Colors:
    """The mean color of a crop, centered, as a unit vector."""

    dim = 3

    def measure(self, crops):
        rows = (crops.reshape(len(crops), -1, 3).mean(axis=1) - 127.5).astype(np.float32)
        return rows, np.linalg.norm(rows, axis=1)

    def embed(self, crops):
        rows, _ = self.measure(crops)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_person(path, person, image, size=16):
    rng = np.random.default_rng((person, image))
    crop = np.clip(COLORS[person] + rng.normal(0, 6, 3) + rng.normal(0, 2, (size, size, 3)), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, crop.astype(np.uint8))


def name(person, image):
    return f"p{person:02d}/p{person:02d}_{image + 1:04d}.png"


def write_folder(root, people=PEOPLE, images=IMAGES, size=16):
    for person in range(people):
        for image in range(images):
            write_person(root / name(person, image), person, image, size)


def pair_rows(count=40, people=PEOPLE, seed=1):
    """(person, picture, person, picture), genuine and impostor in turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        a, b = rng.choice(people, 2, replace=False)
        i, j = rng.choice(IMAGES, 2, replace=False)
        rows.append((a, i, a if k % 2 else b, j))
    return rows


def lfw(root):
    write_folder(root / "images")
    lines = []
    rows = pair_rows()
    for fold in range(2):
        part = rows[20 * fold : 20 * fold + 20]
        lines += [f"p{a:02d}\t{i + 1}\t{j + 1}" for a, i, b, j in part if a == b]
        lines += [f"p{a:02d}\t{i + 1}\tp{b:02d}\t{j + 1}" for a, i, b, j in part if a != b]
    (root / "pairs.txt").write_text("2\t10\n" + "\n".join(lines) + "\n")


def calfw(root):
    write_folder(root / "images")
    lines = []
    for k, (a, i, b, j) in enumerate(pair_rows()):
        mark = 1 + k % 10 if a == b else 0
        lines += [f"p{a:02d}_{i + 1:04d}.png {mark}", f"p{b:02d}_{j + 1:04d}.png {mark}"]
    (root / "pairs_CALFW.txt").write_text("\n".join(lines) + "\n")


def cfp(root):
    numbers = {}
    for side, kind in (("F", "frontal"), ("P", "profile")):
        lines = []
        for person in range(PEOPLE):
            for image in range(IMAGES):
                write_person(root / f"Data/Images/{person:03d}/{kind}/{image + 1:02d}.png", person, image)
                lines.append(f"{len(lines) + 1} ../Data/Images/{person:03d}/{kind}/{image + 1:02d}.png")
                numbers[side, person, image] = len(lines)
        (root / "Protocol").mkdir(exist_ok=True)
        (root / f"Protocol/Pair_list_{side}.txt").write_text("\n".join(lines) + "\n")
    for kind in ("FF", "FP"):
        for fold in range(2):
            split = root / f"Protocol/Split/{kind}/{fold + 1:02d}"
            split.mkdir(parents=True)
            part = pair_rows()[20 * fold : 20 * fold + 20]
            for file, same in (("same.txt", True), ("diff.txt", False)):
                lines = [f"{numbers['F', a, i]},{numbers[kind[1], b, j]}" for a, i, b, j in part if (a == b) == same]
                (split / file).write_text("\n".join(lines) + "\n")


def youtube_faces(root):
    for person in range(PEOPLE):
        for video in range(2):
            for frame in range(3):
                write_person(root / f"p{person:02d}/{video}/{frame}.jpg", person, 10 * video + frame)
    lines = ["split number, first name, second name, similarity, is same "]
    for k, (a, _, b, _) in enumerate(pair_rows()):
        lines.append(f"{1 + k // 20}, p{a:02d}/0, p{b:02d}/1, 0.5, {int(a == b)}")
    (root / "splits.txt").write_text("\n".join(lines) + "\n")


def ijb(root):
    write_folder(root / "flat", 16, 6, 112)
    (root / "meta").mkdir()
    (root / "loose_crop").mkdir()
    points = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"
    tid, lands = [], []
    for person in range(16):
        for image in range(6):
            file = f"{person * 6 + image + 1}.png"
            (root / "flat" / name(person, image)).rename(root / "loose_crop" / file)
            template = 100 + person * 2 + image // 3
            tid.append(f"{file} {template} {image // 2 + 50}")
            lands.append(f"{file} {points} {0.5 + image / 10}")
    (root / "meta/ijbc_face_tid_mid.txt").write_text("\n".join(tid) + "\n")
    (root / "meta/ijbc_name_5pts_score.txt").write_text("\n".join(lands) + "\n")
    pairs = [f"{100 + 2 * a} {101 + 2 * b} {int(a == b)}" for a in range(16) for b in range(16)]
    (root / "meta/ijbc_template_pair_label.txt").write_text("\n".join(pairs) + "\n")
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME"
    for kind, people, first in (
        ("gallery_G1", range(8), 100),
        ("gallery_G2", range(8, 14), 100),
        ("probe_mixed", range(16), 101),
    ):
        rows = [f"{first + 2 * p},{p},x.jpg" for p in people]
        (root / f"meta/ijbc_1N_{kind}.csv").write_text("\n".join([head, *rows]) + "\n")


def rfw(root):
    for g, group in enumerate(("African", "Asian", "Caucasian", "Indian")):
        lines = []
        for person in range(6):
            for image in range(IMAGES):
                write_person(root / f"data/{group}/m.{person}/m.{person}_{image + 1:04d}.jpg", 6 * g + person, image)
        rows = pair_rows(people=6, seed=g)
        lines += [f"m.{a}\t{i + 1}\t{j + 1}" for a, i, b, j in rows if a == b]
        lines += [f"m.{a}\t{i + 1}\tm.{b}\t{j + 1}" for a, i, b, j in rows if a != b]
        (root / f"txts/{group}").mkdir(parents=True)
        (root / f"txts/{group}/{group}_pairs.txt").write_text("\n".join(lines) + "\n")


def groups(root):
    write_folder(root / "images")
    with (root / "pairs.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["reference", "probe", "genuine", "age_reference", "age_probe", "light"])
        for k, (a, i, b, j) in enumerate(pair_rows(200)):
            ages = ["young" if p % 2 else "old" for p in (a, b)]
            out.writerow([name(a, i), name(b, j), int(a == b), *ages, "day" if k % 3 else "night"])


def identification(root):
    for person in range(PEOPLE):
        for image in range(IMAGES):
            if image < 2 and person < 9:
                write_person(root / "gallery" / name(person, image), person, image)
            elif image >= 2:
                write_person(root / "probe" / name(person, image), person, image)
    for person in range(20, 26):
        write_person(root / f"distractors/{person}.png", person, 0)


def tinyface(root):
    for person in range(PEOPLE):
        write_person(root / f"Gallery_Match/{person}_1.png", person, 0)
        write_person(root / f"Probe/{person}_2.png", person, 1)
    for person in range(20, 30):
        write_person(root / f"Gallery_Distractor/{person}_1.png", person, 0)


def megaface(root):
    write_folder(root / "probe", 5, 3)
    for person in range(20, 40):
        write_person(root / f"distractors/{person}.png", person, 0)


LAYOUTS = {
    "pairs": lfw,
    "lfw": lfw,
    "xqlfw": lfw,
    "agedb-30": lfw,
    "calfw": calfw,
    "cplfw": calfw,
    "cfp-ff": cfp,
    "cfp-fp": cfp,
    "youtube-faces": youtube_faces,
    "ijb": ijb,
    "ijb-search": ijb,
    "rfw": rfw,
    "groups": groups,
    "identification": identification,
    "tinyface": tinyface,
    "megaface": megaface,
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    made = {}

    def make(write):
        if write not in made:
            made[write] = tmp_path_factory.mktemp(write.__name__)
            write(made[write])
        return made[write]

    return make


@pytest.mark.parametrize("protocol", sorted(LAYOUTS))
def test_every_protocol_runs_and_finds_the_colors(protocol, layouts, tmp_path):
    task = load_protocol(protocol, layouts(LAYOUTS[protocol]))
    report = evaluate(
        Colors(),
        task.protocol,
        task.images,
        scores=tmp_path / "s.npz",
        baseline=True,
        settings=EvaluationSettings(bootstrap=20),
    )
    body = json.loads(report.to_json())
    assert body["failures_to_acquire"]["images"] == 0
    assert body["data"]["images"] == len(task.protocol.images)
    good = [body[k] for k in ("auc", "rank_1") if isinstance(body.get(k), float)]
    assert good
    assert min(good) > 0.8
    assert str(report).count("\n") > 3
    assert "toprule" in report.to_latex()
    if protocol in ("groups", "ijb-search", "megaface"):
        assert report.to_html().count("<svg") == len(report.plots) > 0


def test_the_registry_is_covered():
    assert set(PROTOCOLS) - set(LAYOUTS) <= {"closed-set", "folder"}, "a new protocol needs a layout here"


def test_ijb_equals_plain_pooling(layouts):
    """Media means, sums over media, detector scores: one comparison worked by hand."""
    root = layouts(ijb)
    task = load_protocol("ijb", root)
    embedder = Colors()
    report = evaluate(embedder, task.protocol, task.images, settings=EvaluationSettings(bootstrap=0))

    def template(person, half, *, norms=False):
        total = np.zeros(3)
        media = {}
        for image in range(3 * half, 3 * half + 3):
            crop = task.images(f"{person * 6 + image + 1}.png")[None]
            x = (embedder.measure(crop)[0] if norms else embedder.embed(crop))[0].astype(float)
            media.setdefault(image // 2, []).append(x * (0.5 + image / 10))
        for rows in media.values():
            total += np.mean(rows, axis=0)
        return total / np.linalg.norm(total)

    similarity = report.scores["similarity"].reshape(16, 16)
    for a, b in ((0, 0), (3, 7), (15, 2)):
        assert similarity[a, b] == pytest.approx(template(a, 0) @ template(b, 1), abs=1e-5)
    # Row A7: --preset arcface is the whole rule, N1 (raw features) and D1 (detector scores).
    published = EvaluationSettings(bootstrap=0, preset="arcface")
    preset = evaluate(embedder, task.protocol, task.images, settings=published)
    similarity = preset.scores["similarity"].reshape(16, 16)
    for a, b in ((0, 0), (3, 7), (15, 2)):
        expected = template(a, 0, norms=True) @ template(b, 1, norms=True)
        assert similarity[a, b] == pytest.approx(expected, abs=1e-5)
    assert np.abs(preset.scores["similarity"] - report.scores["similarity"]).max() > 1e-3
    assert list(preset.results["preset"]["tmr_at_nearest_fmr"]) == ["1e-1", "1e-2", "1e-3", "1e-4", "1e-5", "1e-6"]
    bare = load_protocol("ijb", root, detector_scores=False)
    with pytest.raises(ProtocolError, match="D1"):
        evaluate(embedder, bare.protocol, bare.images, settings=published)
    norms = load_protocol("ijb", root, norms=True, detector_scores=False)
    weighted = evaluate(embedder, norms.protocol, norms.images, settings=EvaluationSettings(bootstrap=0))
    assert not np.allclose(weighted.scores["similarity"], report.scores["similarity"])


def test_open_set_identification_counts_who_is_not_enrolled(layouts):
    task = load_protocol("identification", layouts(identification))
    body = evaluate(Colors(), task.protocol, task.images).to_dict()
    assert body["searches"] == {"mated": 18, "non_mated": 6}
    assert body["data"]["distractors"] == 6
    assert body["tpir_at_fpir"]["1e-1"] is None  # six non-mated searches allow no false positive


def test_groups_share_one_threshold(layouts):
    task = load_protocol("groups", layouts(groups))
    report = evaluate(Colors(), task.protocol, task.images, settings=EvaluationSettings(bootstrap=0, group_fmr=0.05))
    body, text = report.to_dict(), str(report)
    for column in ("age", "light"):
        assert f"By {column}, at one threshold" in text
        assert f"By {column}, each at its own threshold" in text
    assert set(body["groups"]) == {"age", "light"}
    age = body["groups"]["age"]
    assert [g["group"] for g in age["groups"]] in (["old", "young"], ["young", "old"])
    rates = [g["fmr"] for g in age["groups"]]
    assert rates == sorted(rates, reverse=True)
    assert (
        age["between_groups"]["impostor"] + sum(g["impostor"] for g in age["groups"]) == body["comparisons"]["impostor"]
    )
    assert age["fmr_overall"] <= 0.05


def test_video_frames_can_be_limited(layouts):
    root = layouts(youtube_faces)
    few, every = load_protocol("youtube-faces", root, frames=1), load_protocol("youtube-faces", root)
    assert len(every.protocol.images) == 3 * len(few.protocol.images)


def test_a_missing_picture_is_an_error_that_names_the_line(tmp_path):
    lfw(tmp_path)
    (tmp_path / "images" / name(0, 0)).unlink()
    (tmp_path / "pairs.txt").write_text("p00\t1\t2\np01\t1\tp02\t1\n")
    with pytest.raises(DataError, match="line 1"):
        load_protocol("pairs", tmp_path)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("pairs", "expected a pair list"),
        ("identification", "expected a folder 'gallery'"),
        ("ijb", "face_tid_mid"),
        ("rfw", "GROUP_pairs.txt"),
        ("groups", "cannot read the CSV"),
        ("youtube-faces", "splits.txt"),
    ],
)
def test_data_of_another_kind_is_refused(tmp_path, protocol, said):
    write_folder(tmp_path, 2, 1)
    with pytest.raises((ProtocolError, DataError), match=said):
        load_protocol(protocol, tmp_path)


def test_unknown_protocol_and_missing_folder(tmp_path):
    with pytest.raises(ProtocolError, match="did you mean 'pairs'"):
        load_protocol("pair", tmp_path)
    with pytest.raises(ProtocolError, match="no such file or folder"):
        load_protocol("lfw", tmp_path / "none")
