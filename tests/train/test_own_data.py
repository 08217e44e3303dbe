"""Pictures given with --data: they take the place of generated people, and people held out of them judge the run."""

import json
import shutil

import cv2
import numpy as np
import pytest

from visavis.cli import main
from visavis.data.sources import open_source
from visavis.errors import DataError, RecipeError
from visavis.train.dataset import held_out_images, kept_images
from visavis.train.held_out import draw_pairs, split_identities
from visavis.train.recipe import load_recipe, parse_recipe, recipe_names

GENERATED = {"data": {"synthetic": {"identities": 800}, "held_out": 0.1}, "loop": {"steps": 5}}


@pytest.mark.parametrize(
    ("flags", "identities"),
    [
        ([], 800),
        (["--data.source=faces"], 0),
        (["--data.source", "faces"], 0),
        (["--data.source="], 800),
        (["--data.source=faces", "--data.generated"], 800),
        (["--data.generated=true", "--data.source=faces"], 800),
        (["--data.source=faces", "--data.generated=false"], 0),
        (["--data.source=faces", "--data.synthetic.identities=50"], 50),
        (["--data.source=faces", "--data.synthetic.seed=3"], 0),
    ],
)
def test_a_source_given_takes_the_place_of_generated_people(flags, identities):
    recipe = parse_recipe(GENERATED, flags)
    assert recipe.data.synthetic.identities == identities


def test_it_is_said_that_generated_people_are_replaced(caplog):
    caplog.set_level("INFO")
    parse_recipe(GENERATED, ["--data.source=faces"])
    assert "800 generated people" in caplog.text
    assert "--data.generated adds them" in caplog.text


def test_a_run_that_goes_on_keeps_what_it_had():
    both = {**GENERATED, "data": {**GENERATED["data"], "source": "faces"}}
    assert parse_recipe(both, ["--data.source=elsewhere"], kept=True).data.synthetic.identities == 800


@pytest.mark.parametrize(
    ("values", "flags", "said"),
    [
        (GENERATED, ["--data.generated"], "without --data SRC"),
        ({"data": {"source": "a"}, "loop": {"steps": 5}}, ["--data.source=b", "--data.generated"], "recipe has none"),
        (GENERATED, ["--data.source=b", "--data.generated=faces"], "takes no value"),
        (GENERATED, ["--data.held_out=1"], "held_out must lie in"),
    ],
)
def test_generated_people_are_added_to_a_source_only(values, flags, said):
    with pytest.raises(RecipeError, match=said):
        parse_recipe(values, flags)


@pytest.mark.parametrize("flag", ["--evaluate.pairs=pairs.txt", "--evaluate.source=lfw", "--evaluate.valid=v.txt"])
def test_where_pairs_are_named_nobody_is_held_out(flag):
    assert parse_recipe(GENERATED, ["--data.source=faces", flag]).data.held_out == 0
    assert parse_recipe(GENERATED, ["--data.source=faces", flag, "--data.held_out=0.2"]).data.held_out == 0.2


@pytest.mark.parametrize("name", [name for name in recipe_names() if load_recipe(name).data.synthetic.identities])
def test_a_recipe_of_generated_people_trains_on_a_folder_alone_and_judges_by_it(name):
    if name == "quickstart":
        pytest.skip("its command takes no --data")
    recipe = load_recipe(name, ["--data.source=faces"])
    assert (recipe.data.synthetic.identities, recipe.data.held_out) == (0, 0.1)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """30 people: ten of one picture, the others of two to five."""
    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(1)
    for person in range(30):
        folder = root / f"p{person:02d}"
        folder.mkdir()
        for k in range(1 if person < 10 else 2 + person % 4):
            cv2.imwrite(str(folder / f"{k}.png"), rng.integers(0, 256, (32, 32, 3), np.uint8))
    return root


def test_trained_on_and_held_out_share_nobody_and_do_not_depend_on_the_seed(people):
    flags = [f"--data.source={people}", "--data.held_out=0.3"]
    runs = [load_recipe("arcface-small", [*flags, f"--seed={seed}"]).data for seed in (0, 7)]
    trained, held = kept_images(runs[0])[0], held_out_images(runs[0])
    assert held.identities == held_out_images(runs[1]).identities
    assert not set(trained.identities) & set(held.identities)
    assert len(trained.identities) + len(held.identities) == 30
    assert len(held.identities) == 6  # of the twenty with two pictures
    assert min(np.bincount(held.labels)) >= 2


def test_who_joins_the_folder_moves_at_most_one_of_those_held_out(people, tmp_path):
    shutil.copytree(people, tmp_path / "more")
    shutil.copytree(people / "p20", tmp_path / "more" / "somebody new")
    before = set(split_identities(open_source(people), 0.3)[1])
    after = set(split_identities(open_source(tmp_path / "more"), 0.3)[1])
    assert len(before - after) <= 1


@pytest.mark.parametrize(("able", "fits"), [(5, False), (6, True)])
def test_six_people_of_two_pictures_are_the_fewest(people, able, fits):
    source = open_source(people).only([f"p{i:02d}" for i in range(10, 10 + able)])
    if fits:
        trained, held = split_identities(source, 0.01)
        assert (len(trained), len(held)) == (2, 4)
        assert {len(split_identities(source, share)[0]) for share in (0.5, 0.99)} == {2}
    else:
        with pytest.raises(DataError, match=r"6 identities.*got 5.*--data\.held_out 0"):
            split_identities(source, 0.01)


def test_pairs_of_those_held_out_are_balanced_distinct_and_apart_by_fold(people):
    source = open_source(people)
    pairs = draw_pairs(source, count=60)
    assert 20 <= len(pairs) <= 60
    owner = np.array([name.split("/")[0] for name in pairs.images])
    first, second = owner[pairs.reference], owner[pairs.probe]
    assert np.array_equal(first == second, pairs.genuine)
    assert not np.any(pairs.reference == pairs.probe)
    drawn = {(a, b) for a, b in zip(pairs.reference, pairs.probe, strict=True)}
    assert len(drawn) == len(pairs)
    folds: dict[str, set[int]] = {}
    for person, fold in zip([*first, *second], [*pairs.fold, *pairs.fold], strict=True):
        folds.setdefault(person, set()).add(int(fold))
    assert all(len(of) == 1 for of in folds.values())
    for fold in np.unique(pairs.fold):
        assert pairs.genuine[pairs.fold == fold].mean() == 0.5
    assert np.array_equal(draw_pairs(source, count=60).reference, pairs.reference)


def test_training_on_a_folder_says_who_was_held_out(people, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["train", "from-scratch", "--data", str(people), "--out", str(run), "--loop.steps", "2"]
    small = [
        "--preprocess.size",
        "[32,32]",
        "--backbone.args.width",
        "8",
        "--loop.wccn_ridge",
        "0",
        "--data.workers",
        "0",
    ]
    assert main([*command, *small, "--loop.batch_size", "8"]) == 0
    held = (run / "held_out.txt").read_text().split("\n")[:-1]
    trained = json.loads((run / "last" / "identities.json").read_text())["names"]
    assert len(held) == 4
    assert set(held) | set(trained) == {f"p{i:02d}" for i in range(30)}
    card = json.loads((run / "best" / "card.json").read_text())
    assert "identities: 26" in card["training_data"]
    assert "held out identities: 4" in card["training_data"]
    assert "synthetic" not in card["training_data"]
    assert "Verification of" in capsys.readouterr().out
    assert main(["train", "--resume", str(run), "--loop.steps", "3"]) == 0
    assert main(["train", "--resume", str(run), "--data.held_out", "0.5"]) == 2
