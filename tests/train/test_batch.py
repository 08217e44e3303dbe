"""The global batch: devices divide it, accumulation makes up the rest, and the images of a step are always the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.data.samplers import PxK, Shuffled
from visavis.errors import RecipeError
from visavis.train.batch import plan_batch
from visavis.train.recipe import load_recipe, parse_recipe, recipe_names


def recipe(batch_size, device_batch=0, **data):
    values = {
        "data": {"source": "x", **data},
        "loop": {"batch_size": batch_size, "device_batch": device_batch, "steps": 1},
    }
    return parse_recipe(values)


@pytest.mark.parametrize(
    ("batch", "most", "devices", "accumulate", "at_once"),
    [(64, 0, 1, 1, 64), (512, 64, 8, 1, 64), (512, 64, 1, 8, 64), (512, 64, 2, 4, 64), (512, 64, 16, 1, 32)],
)
def test_devices_divide_and_accumulation_makes_up_the_rest(batch, most, devices, accumulate, at_once):
    plan = plan_batch(recipe(batch, most), devices)
    assert (plan.accumulate, plan.device_batch) == (accumulate, at_once)
    assert plan.devices * plan.accumulate * plan.device_batch == plan.batch_size == batch


@pytest.mark.parametrize(
    ("made", "devices", "said"),
    [
        (recipe(64), 3, r"cannot be divided over 3 devices; type --loop\.batch_size 63"),
        (recipe(4), 4, r"over 4 devices \(each needs at least 2\); type --loop\.batch_size 8"),
        (recipe(64, 24), 1, r"device_batch 24 does not divide a device's 64 .*; type --loop\.device_batch (16|32)"),
        (
            recipe(60, sampler="pxk", images_per_class=5),
            8,
            r"identities of 5 images; type --loop\.batch_size 80",
        ),
        (
            recipe(62, sampler="pxk", images_per_class=5),
            1,
            r"multiple of data\.images_per_class .*batch_size 60",
        ),
        (recipe(60, 6, sampler="pxk", images_per_class=5), 1, r"type --loop\.device_batch 5"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_what_can(made, devices, said):
    with pytest.raises(RecipeError, match=said) as caught:
        plan_batch(made, devices)
    key, value = str(caught.value).split("type --loop.")[1].split(",")[0].split()[:2]
    setattr(made.loop, key, int(value))
    plan_batch(made, devices)  # what was said to be typed does it


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_shared_by_one_device(name):
    plan_batch(load_recipe(name), 1)


def test_the_key_that_is_gone_says_what_to_write():
    with pytest.raises(RecipeError, match=r"loop\.accumulate is gone: loop\.batch_size is the global batch now"):
        parse_recipe({"data": {"source": "x"}, "loop": {"steps": 1, "accumulate": 2}})
    with pytest.raises(RecipeError, match=r"--loop\.accumulate is gone"):
        parse_recipe({"data": {"source": "x"}, "loop": {"steps": 1}}, ["--loop.accumulate=2"])


@given(
    step=st.integers(0, 40),
    shared=st.sampled_from([(1, 1), (1, 4), (2, 2), (4, 1), (2, 1), (1, 2)]),
    make=st.sampled_from(["shuffled", "pxk"]),
)
def test_a_step_has_the_same_images_however_it_is_shared(step, shared, make):
    labels = np.repeat(np.arange(11), [1, 2, 3, 5, 8, 13, 4, 2, 2, 2, 2])
    world, accumulate = shared

    def sampler(parts, rank, world, accumulate):
        if make == "shuffled":
            return Shuffled(labels, batch_size=8 // parts, seed=3, rank=rank, world=world, accumulate=accumulate)
        return PxK(
            labels, classes_per_batch=4 // parts, images_per_class=2, seed=3, rank=rank, world=world,
            accumulate=accumulate,
        )  # fmt: skip

    alone = sampler(1, 0, 1, 1)
    parts = [sampler(world * accumulate, rank, world, accumulate) for rank in range(world)]
    found = [p.batch(step * accumulate + part) for p in parts for part in range(accumulate)]
    assert np.array_equal(np.concatenate(found), alone.batch(step))
    assert parts[0].batches_per_epoch == alone.batches_per_epoch * accumulate
