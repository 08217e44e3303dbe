import math

import pytest
import torch

from visavis.errors import RecipeError
from visavis.train.recipe import ScheduleRecipe
from visavis.train.schedule import SCHEDULES, build_schedule


def build(name, total=100, per_epoch=10, **fields):
    return build_schedule(ScheduleRecipe(name=name, **fields), total=total, per_epoch=per_epoch)


def test_cosine_follows_its_equation():
    factor = build("cosine", args={"final": 0.1})
    for step in (0, 25, 50, 100):
        assert factor(step) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * step / 100)) / 2)


@pytest.mark.parametrize(("t_max", "epochs", "final"), [(23, 25, 0.0), (20, 20, 0.01), (5, 12, 0.1)])
def test_cosine_of_t_max_epochs_is_torchs(t_max, epochs, final):
    """Row S8's script for eight GPUs: T_max 23 of 25 epochs, stepped per epoch; eta_min is `final` of the base rate."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.15)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=t_max, eta_min=final * 0.15)
    args = {"t_max": t_max, "by_epoch": True, "final": final}
    factor = build("cosine", total=epochs * 10, per_epoch=10, args=args)
    for epoch in range(epochs):
        assert 0.15 * factor(epoch * 10 + 9) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        theirs.step()
    with pytest.raises(RecipeError, match="t_max"):
        build("cosine", args={"t_max": -1})


def test_a_warm_up_of_epochs_is_one_of_their_steps():
    by_epochs, by_steps = build("polynomial", warmup_epochs=1.5), build("polynomial", warmup_steps=15)
    assert [by_epochs(s) for s in range(100)] == [by_steps(s) for s in range(100)]
    with pytest.raises(RecipeError, match="warmup_epochs"):
        build("polynomial", warmup_epochs=1, warmup_steps=10)


def test_multistep_drops_at_its_milestones_in_each_unit():
    for args in (
        {"milestones": [0.3, 0.6]},
        {"milestones": [30, 60], "unit": "step"},
        {"milestones": [3, 6], "unit": "epoch"},
    ):
        factor = build("multistep", args=args)
        assert [factor(s) for s in (0, 29, 30, 59, 60, 99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_polynomial_of_power_two_is_arcface_torchs():
    factor = build("polynomial", args={"power": 2})
    assert factor(25) == pytest.approx(0.75**2)
    assert factor(100) == 0


def test_linear_warm_up_reaches_the_base_rate_at_its_last_step():
    factor = build("constant", warmup_steps=4)
    assert [factor(s) for s in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    held = build("constant", warmup_steps=4, warmup="constant", warmup_start=0.1)
    assert [held(s) for s in (0, 3, 4)] == pytest.approx([0.1, 0.1, 1])


def test_rates_from_a_file_hold_after_the_last_row(tmp_path):
    """Rows M9 and M21."""
    path = tmp_path / "rates.txt"
    path.write_text("# stage 1\n0: 0.01\n5: 0.05  # faster\n\n10: 0.001\n")
    factor = build("from-file", args={"path": str(path)})
    assert [factor(s) for s in (0, 49, 50, 99, 100, 10_000)] == [0.01, 0.01, 0.05, 0.05, 0.001, 0.001]


@pytest.mark.parametrize("text", ["", "0 0.1\n", "0: a\n", "5: .1\n3: .2\n"])
def test_a_bad_rate_file_is_refused(tmp_path, text):
    path = tmp_path / "rates.txt"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"rates\.txt"):
        build("from-file", args={"path": str(path)})


def test_unknown_names_and_arguments_name_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'cosine'"):
        build("cosin")
    with pytest.raises(RecipeError, match="did you mean 'power'"):
        build("polynomial", args={"powr": 2})


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"from-file"}))
def test_every_schedule_stays_finite_and_not_negative(name):
    factor = build(name)
    values = [factor(s) for s in range(131)]
    assert all(math.isfinite(v) and v >= 0 for v in values)
