"""Recipe keys of the release before are read for one release, with a line; both names of one key are refused."""

import pytest

from visavis.errors import RecipeError
from visavis.train.former_keys import FORMER_KEYS
from visavis.train.recipe import Recipe, _all_keys, load_recipe, parse_recipe


def recipe(**sections):
    return {"loop": {"steps": 1}, "data": {"synthetic": {"identities": 4}}, **sections}


def test_every_former_key_has_a_present_one():
    keys = set(_all_keys(Recipe))
    assert set(FORMER_KEYS.values()) <= keys
    assert not set(FORMER_KEYS) & keys


def test_a_former_key_is_read_in_yaml_and_as_a_flag_with_a_line(caplog):
    read = parse_recipe(
        recipe(head={"sub_centres": 3}, augment={"turn": 20.0}), ["--augment.erase=0.3", "--head.centre_loss", "0.1"]
    )
    assert (read.head.sub_centers, read.augment.yaw, read.augment.random_erasing, read.head.center_loss) == (
        3,
        20,
        0.3,
        0.1,
    )
    assert "head.sub_centres is now called head.sub_centers" in caplog.text
    assert "--augment.erase is now called --augment.random_erasing" in caplog.text


def test_both_names_of_one_key_are_refused():
    with pytest.raises(RecipeError, match=r"augment\.turn and augment\.yaw are one key"):
        parse_recipe(recipe(augment={"turn": 20.0, "yaw": 20.0}))


def test_a_present_recipe_says_nothing(caplog):
    load_recipe("sphereface")
    assert "is now called" not in caplog.text
