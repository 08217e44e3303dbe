"""visavis evaluate --joint-bayesian: the scorer of row D13's paper in place of the cosine."""

import json

import numpy as np
import pytest

from visavis.cli import main
from visavis.metrics.joint_bayesian import PairScorer
from visavis.models.load import load_embedder
from visavis.vision import images


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_color_model):
    """Thirty people of four pictures to compare, thirty others to learn from: a color each."""
    root = tmp_path_factory.mktemp("joint")
    rng = np.random.default_rng(0)
    for group in ("judge", "learn"):
        for i in range(30):
            (root / group / "images" / f"{group}{i}").mkdir(parents=True)
            color = rng.integers(60, 200, 3)
            for p in range(4):
                crop = np.clip(color + rng.normal(0, (25, 4, 4)) + np.zeros((16, 16, 3)), 0, 255).astype(np.uint8)
                images.write(root / group / "images" / f"{group}{i}" / f"{group}{i}_{p + 1:04d}.png", crop)
    lines = ["10\t30"]
    for fold in range(10):
        lines += [f"judge{(i + fold) % 30}\t{1 + fold % 3}\t4" for i in range(30)]
        lines += [f"judge{i}\t1\tjudge{(i + 1 + fold) % 30}\t2" for i in range(30)]
    (root / "judge/pairs.txt").write_text("\n".join(lines) + "\n")
    return root, write_color_model(root / "model")


def test_scores_are_those_of_a_scorer_learned_from_the_other_people(made, tmp_path):
    root, model = made
    command = ["evaluate", str(model), "--data", str(root / "judge"), "--bootstrap", "0"]
    learn = ["--joint-bayesian", str(root / "learn"), "--joint-dim", "2"]
    assert main([*command, *learn, "--json", str(tmp_path / "joint.json")]) == 0
    joint = json.loads((tmp_path / "joint.json").read_text())
    assert joint["model"]["scorer"].startswith("PCA to 2 and Joint Bayesian")
    assert joint["auc"] > 0.9
    embedder = load_embedder(model)

    def embedded(group, names):
        paths = [(root / group / "images" / n).with_suffix(".png") for n in names]  # the list says .jpg
        return embedder.embed(np.stack([images.read(p) for p in paths]))

    with np.load(tmp_path / "joint.scores.npz") as scores:
        names, first, second = scores["names"], scores["reference"], scores["probe"]
        found = scores["similarity"]
    learned = [f"learn{i}/learn{i}_{p:04d}.png" for i in range(30) for p in range(1, 5)]
    scorer = PairScorer.fit(embedded("learn", learned), np.repeat(np.arange(30), 4), dim=2)
    rows = embedded("judge", names)
    np.testing.assert_allclose(found, scorer.score(rows[first], rows[second]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--joint-bayesian", "judge"], "must be learned from people who are not compared, but judge0"),
        (["--joint-bayesian", "learn", "--joint-dim", "99"], "PCA to 99 dimensions"),
        (["--joint-bayesian", "learn", "--preset", "deepid"], "its scores are no cosines, which --preset"),
        (["--joint-bayesian", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_line(made, capsys, monkeypatch, options, said):
    root, model = made
    monkeypatch.chdir(root)
    assert main(["evaluate", str(model), "--data", "judge", "--no-baseline", *options]) == 2
    assert said in capsys.readouterr().err


def test_people_are_told_from_clips_and_from_the_numbers_of_a_list(made, capsys):
    """YouTube Faces' lists: person/clip/frame to compare, `path TAB number` to learn from."""
    root, model = made
    home, rng = root / "clips", np.random.default_rng(1)
    frames = {}
    for person in range(40):
        for clip in (0, 1):
            name = f"person{person}/{clip}/1.png"
            (home / "images" / name).parent.mkdir(parents=True)
            images.write(home / "images" / name, rng.integers(0, 255, (16, 16, 3)).astype(np.uint8))
            frames[person, clip] = name
    tested = range(20)
    pairs = [f"{frames[p, 0]}\t{frames[p, 1]}\t1" for p in tested]
    pairs += [f"{frames[p, 0]}\t{frames[(p + 1) % 20, 1]}\t0" for p in tested]
    (home / "pairs.txt").write_text("\n".join(pairs) + "\n")
    for name, people in (("others", range(20, 40)), ("tested", range(19, 39))):
        lines = [f"{frames[p, clip]}\t{i}" for i, p in enumerate(people) for clip in (0, 1)]
        (home / f"{name}.txt").write_text("\n".join(lines) + "\n")
    command = ["evaluate", str(model), "--data", str(home), "--no-baseline", "--bootstrap", "0", "--joint-dim", "2"]
    assert main([*command, "--joint-bayesian", str(home / "others.txt")]) == 0
    assert main([*command, "--joint-bayesian", str(home / "tested.txt")]) == 2
    assert "not compared, but person19 are in both" in capsys.readouterr().err
