import jsonargparse
import pytest
import yaml
from paths import BENCHMARKS

from visavis.errors import RecipeError
from visavis.train.recipe import load_recipe, parse_recipe, recipe_names

RECIPES = BENCHMARKS / "recipes"
MINIMAL = {"data": {"source": "faces"}, "loop": {"steps": 5}}


def test_overrides_win_over_the_file_and_the_file_over_the_defaults():
    values = {**MINIMAL, "optimizer": {"lr": 0.2, "momentum": 0.8}}
    recipe = parse_recipe(values, ["--optimizer.lr", "0.05", "--preprocess.size", "[56, 56]"])
    assert (recipe.optimizer.lr, recipe.optimizer.momentum) == (0.05, 0.8)
    assert recipe.optimizer.weight_decay == 5e-4
    assert recipe.preprocess.spec().size == (56, 56)


def test_arguments_of_a_head_can_be_overridden_one_by_one():
    values = {**MINIMAL, "head": {"name": "arcface", "args": {"scale": 32.0, "margin": 0.5}}}
    assert parse_recipe(values, ["--head.args.margin", "0.3"]).head.args == {"scale": 32.0, "margin": 0.3}


def test_a_template_is_a_name_or_five_points():
    points = [[38.0, 51.5], [73.5, 51.5], [56.0, 71.5], [41.5, 92.5], [70.5, 92.0]]
    for flags in ([], ["--preprocess.template", str(points)]):
        values = MINIMAL if flags else {**MINIMAL, "preprocess": {"template": points, "antialias": "none"}}
        recipe = parse_recipe(values, flags)
        assert recipe.preprocess.spec().template == tuple(map(tuple, points))
        assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    assert parse_recipe(MINIMAL).preprocess.template == "arcface"
    with pytest.raises(RecipeError, match="five pairs"):
        parse_recipe({**MINIMAL, "preprocess": {"template": points[:4]}})


def test_yaml_round_trip_keeps_every_field():
    recipe = parse_recipe({**MINIMAL, "augment": {"erase": 0.25}, "head": {"args": {"scale": 16}}})
    assert parse_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    ("values", "flags", "words"),
    [
        ({**MINIMAL, "optimizr": {}}, [], ["optimizr", "did you mean 'optimizer"]),
        ({**MINIMAL, "optimizer": {"learning_rate": 1}}, [], ["optimizer.learning_rate", "valid:", "optimizer.lr"]),
        ({**MINIMAL, "optimizer": {"lr": "fast"}}, [], ["optimizer.lr", "float", "fast"]),
        ({**MINIMAL, "optimizer": 3}, [], ["optimizer", "section"]),
        (MINIMAL, ["--optimizer.lrr", "1"], ["optimizer.lrr", "did you mean 'optimizer.lr'"]),
        (MINIMAL, ["--optimizer.lr", "abc"], ["optimizer.lr", "abc"]),
        ({"data": {"source": "x"}}, [], ["loop.steps", "loop.epochs"]),
        ({"loop": {"steps": 5}}, [], ["data.source", "data.synthetic.identities"]),
        ({**MINIMAL, "head": {"name": "none"}}, [], ["head", "triplet"]),
        ({**MINIMAL, "optimizer": {"lr": -1.0}}, [], ["optimizer.lr", "positive"]),
        ({**MINIMAL, "preprocess": {"size": [1, 2]}}, [], ["size", "[8, 1024]"]),
        ([1], [], ["sections", "list"]),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_was_expected_and_what_came(values, flags, words):
    with pytest.raises(RecipeError) as error:
        parse_recipe(values, flags)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_recipe_names_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        load_recipe("quickstrat")
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(RecipeError, match="not YAML"):
        load_recipe(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_the_benchmarks_loads(path):
    recipe = load_recipe(str(path))
    assert recipe.name == path.stem


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_loads(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.loop.steps or recipe.loop.epochs


def test_a_recipe_is_built_once(monkeypatch):
    built = []
    build = jsonargparse.ArgumentParser.instantiate

    def counted(self, *args, **given):
        built.append(self)
        return build(self, *args, **given)

    monkeypatch.setattr(jsonargparse.ArgumentParser, "instantiate", counted)
    parse_recipe(MINIMAL)
    assert len(built) == 1
