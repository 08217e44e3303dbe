"""A wish is never dropped: with --init the network is the model's, and a recipe that says otherwise is refused."""

import pytest

from visavis.errors import RecipeError
from visavis.train.build import build_network
from visavis.train.recipe import load_recipe, parse_recipe
from visavis.train.run_folder import resume_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from visavis.models.torch import save_model

    folder = tmp_path_factory.mktemp("model")
    wanted = parse_recipe(
        {
            "backbone": {"name": "small", "dim": 24, "args": {"width": 8}},
            "preprocess": {"size": [24, 24], "channels": "BGR"},
            "loop": {"steps": 1},
            "data": {"synthetic": {"identities": 4}},
        }
    )
    network, _, card = build_network(wanted)
    save_model(folder, network, card)
    return folder


def values(model, **sections):
    return {"init": str(model), "loop": {"steps": 1}, "data": {"synthetic": {"identities": 4}}, **sections}


@pytest.mark.parametrize(
    ("section", "flags", "said"),
    [
        ({}, ["--backbone.dim", "256"], "backbone.dim 256 has no effect: .* whose backbone.dim is 24"),
        ({}, ["--preprocess.channels", "RGB"], "preprocess.channels 'RGB' has no effect"),
        ({"backbone": {"name": "deepid"}}, [], "backbone.name 'deepid' has no effect"),
        ({"backbone": {"args": {"width": 16}}}, [], "backbone.args"),
        ({"preprocess": {"size": [32, 32]}}, [], r"preprocess.size \[32, 32\] has no effect"),
    ],
)
def test_a_wish_that_cannot_take_effect_is_an_error(model, section, flags, said):
    with pytest.raises(RecipeError, match=said):
        parse_recipe(values(model, **section), flags)


def test_the_recipe_says_what_is_done(model):
    said = {"backbone": {"dim": 24}, "preprocess": {"size": [24, 24]}}
    recipe = parse_recipe(values(model, **said), ["--backbone.args.width", "8"])
    assert (recipe.backbone.name, recipe.backbone.dim, recipe.backbone.args) == ("small", 24, {"width": 8})
    assert (recipe.preprocess.size, recipe.preprocess.channels) == ([24, 24], "BGR")
    _, spec, card = build_network(recipe)
    assert (spec.size, spec.channels, card.embedding_dim) == ((24, 24), "BGR", 24)


def test_a_recipe_a_run_has_kept_is_not_taken_for_wishes(model, tmp_path):
    """Runs write every field; those of the release before wrote the recipe's defaults beside an init model."""
    import yaml

    full = {**values(model), "backbone": {"name": "small", "dim": 128, "args": {}}, "preprocess": {"size": [112, 112]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(full))
    assert resume_recipe(tmp_path).backbone.dim == 24
    with pytest.raises(RecipeError, match=r"backbone\.\w+ .* has no effect"):
        load_recipe(str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("milestones", [[2, 4], [0.5, 1.0], [0.0]])
def test_milestones_need_a_unit_or_lie_between_0_and_1(milestones):
    from visavis.train.schedule import build_schedule

    wanted = parse_recipe(
        {
            "schedule": {"name": "multistep", "args": {"milestones": milestones}},
            "loop": {"steps": 1},
            "data": {"synthetic": {"identities": 4}},
        }
    )
    with pytest.raises(RecipeError, match=r"shares of the run, in \(0, 1\)"):
        build_schedule(wanted.schedule, total=100, per_epoch=10)
    wanted.schedule.args["unit"] = "epoch"
    assert build_schedule(wanted.schedule, total=100, per_epoch=10)(99) < 1
