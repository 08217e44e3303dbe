"""A dry run's steps are those of training, its figure the median, its batch what time and memory have room for."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from visavis.train import loop, trial
from visavis.train.batch import plan_batch
from visavis.train.build import build_network
from visavis.train.recipe import parse_recipe
from visavis.train.time_limit import TimeLimit
from visavis.train.trial import Built, MeasuredRun, free_bytes, measure_speed
from visavis.train.trial_data import Extent, Noise, TrialData


def recipe(**sections):
    values = {
        "data": {"source": "nowhere", "workers": 0},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
        "loop": {"batch_size": 16, "steps": 100, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return parse_recipe(values)


def noise(classes=20, images=400):
    some = Noise(images, (32, 32), classes=classes, each=2, seed=0)
    return TrialData(some, Extent(classes, images, "noise"), per_epoch=10)


def built(wanted):
    return Built(*build_network(wanted))


def trial_of(wanted, images, data=None):
    return MeasuredRun(wanted, built(wanted), data or noise(), torch.device("cpu"), images=images)


def measured(wanted, *, data=None, seconds=60.0, most=1000, forward=math.nan, steps=3):
    plan = plan_batch(wanted, 1)
    return measure_speed(
        wanted, built(wanted), data or noise(), torch.device("cpu"), plan=plan, steps=steps,
        limit=TimeLimit(seconds), most=most, forward=forward, advance=lambda done, of: None,
    )  # fmt: skip


def test_the_step_is_the_one_training_takes(monkeypatch):
    assert trial.train_step is loop.train_step
    own = trial_of(recipe(loop={"ema": 0.9}, optimizer={"clip_norm": 1.0, "name": "adamw"}), 8)
    before = {name: value.clone() for name, value in own.state.network.state_dict().items()}
    assert [own.step()[1] for _ in range(3)] == [8, 8, 8]
    assert (own.state.step, own.state.ema.updates, own.state.skipped) == (3, 3, 0)
    after = own.state.network.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items() if value.is_floating_point())


def test_steps_without_a_gradient_of_the_backbone_are_passed_over():
    own = trial_of(recipe(loop={"freeze_backbone_steps": 50}), 8)
    weight = next(own.state.network.parameters())
    before = weight.detach().clone()
    own.step()
    assert own.state.step == 51
    assert not torch.equal(weight, before)


def test_a_batch_may_grow_and_holds_whole_parts_of_a_devices():
    own = trial_of(recipe(loop={"device_batch": 4}), 2)
    assert own.step()[1] == 2
    own.resize(16)
    assert (own.training.plan.accumulate, own.training.plan.device_batch) == (4, 4)
    assert own.step()[1] == 16


def test_p_by_k_batches_hold_whole_identities():
    wanted = recipe(data={"sampler": "pxk", "images_per_class": 2}, head={"name": "none"}, triplet={"weight": 1.0})
    own = trial_of(wanted, 4)
    for images in (4, 12):
        own.resize(images)
        labels = next(own.batches).labels.numpy()
        assert np.unique(labels, return_counts=True)[1].tolist() == [2] * (images // 2)


def test_the_figure_is_the_median_over_steps(monkeypatch):
    seconds = iter([9.0, 1.0, 9.0, 1.0, 0.5, 4.0, 1.0, 0.8, 30.0])  # the small batch, the whole one, five steps
    monkeypatch.setattr(MeasuredRun, "step", lambda self: (next(seconds), 16))
    speed = measured(recipe(), steps=5, seconds=1000)
    assert (speed.images_per_second, speed.steps, speed.batch) == (16 / 1.0, 5, 16)
    assert speed.spread == pytest.approx((16 / 0.8 - 16 / 4) / 16)
    assert "half of the steps differ by" in speed.remark


def test_steps_alike_need_no_remark(monkeypatch):
    monkeypatch.setattr(MeasuredRun, "step", lambda self: (0.01, 16))
    assert measured(recipe()).remark == ""


@pytest.mark.parametrize(("most", "batch"), [(15, 15), (16, 16), (1000, 16), (3, 3)])
def test_the_batch_is_what_memory_has_room_for(monkeypatch, most, batch):
    monkeypatch.setattr(MeasuredRun, "step", lambda self: (0.001, self.training.plan.batch_size))
    assert measured(recipe(), most=most).batch == batch


def test_what_does_not_fit_memory_is_said_and_not_tried(monkeypatch):
    monkeypatch.setattr(MeasuredRun, "step", lambda self: pytest.fail("a step was tried"))
    speed = measured(recipe(), most=1)
    assert speed.steps == 0
    assert math.isnan(speed.images_per_second)
    assert "needs more memory than there is here" in speed.remark


def test_a_batch_that_time_has_no_room_for_shrinks(monkeypatch):
    monkeypatch.setattr(
        MeasuredRun, "step", lambda self: (1.0 * self.training.plan.batch_size, self.training.plan.batch_size)
    )
    # 3 steps and 2 to warm up in 40 s: 8 s each, 8 images.
    speed = measured(recipe(), seconds=40)
    assert speed.batch in (6, 7, 8)  # the time to build the trial comes off the 40 s
    assert speed.images_per_second == 1.0


def test_where_no_step_fits_the_forward_pass_gives_an_estimate():
    speed = measured(recipe(), seconds=0, forward=0.5)
    assert (speed.steps, speed.images_per_second) == (0, 1 / (3 * 0.5))
    assert "estimated at 3 times a forward pass" in speed.remark
    assert math.isnan(measured(recipe(), seconds=0).images_per_second)


def test_pictures_that_would_be_cached_are_decoded_once(monkeypatch):
    taken = []
    data = noise()
    take = data.images.take
    monkeypatch.setattr(
        data.images, "take", lambda indices: (taken.extend(indices.tolist()), take(indices))[1], raising=False
    )
    own = trial_of(recipe(), 16, data)
    for _ in range(8):
        own.step()
    assert len(taken) == len(set(taken)) <= 32
    uncached = trial_of(replace(recipe(), data=replace(recipe().data, cache_gb=0.0)), 16, data)
    taken.clear()
    for _ in range(8):
        uncached.step()
    assert len(taken) >= 8 * 16


def test_free_memory_is_a_share_of_what_the_system_says(monkeypatch):
    monkeypatch.setattr("visavis.train.trial.memory_gb", lambda: {"MemAvailable": 10.0})
    assert free_bytes(torch.device("cpu")) == 8e9
    monkeypatch.setattr("visavis.train.trial.memory_gb", dict)
    assert free_bytes(torch.device("cpu")) == math.inf
