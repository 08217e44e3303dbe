"""The schedules of row S8 against PyTorch's own, step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torchs

from visavis.errors import RecipeError
from visavis.train.recipe import ScheduleRecipe
from visavis.train.schedule import SCHEDULES, build_schedule

TOTAL, PER_EPOCH = 120, 10


def rates(make: Callable[[torch.optim.Optimizer], Any], every: int = 1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = make(optimizer)
        out = []
        for step in range(TOTAL):
            out.append(optimizer.param_groups[0]["lr"])
            if (step + 1) % every == 0:
                schedule.step()
    return out


ORACLES: list[tuple[str, dict[str, Any], Callable[[torch.optim.Optimizer], Any], int]] = [
    ("inverse", {"gain": 0.1}, lambda o: torchs.LambdaLR(o, lambda t: 1 / (1 + 0.1 * t)), 1),
    ("inverse", {"gain": 0.3, "power": 0.5}, lambda o: torchs.LambdaLR(o, lambda t: (1 + 0.3 * t) ** -0.5), 1),
    ("multiplicative", {"factors": [0.9]}, lambda o: torchs.MultiplicativeLR(o, lambda t: 0.9), PER_EPOCH),
    (
        "multiplicative",
        {"factors": [0.5, 2.0, 0.7], "unit": "step"},
        lambda o: torchs.MultiplicativeLR(o, lambda t: [0.5, 2.0][t - 1] if t < 3 else 0.7),
        1,
    ),
    ("step", {"every": 3, "gamma": 0.2}, lambda o: torchs.StepLR(o, 3, 0.2), PER_EPOCH),
    ("exponential", {"gamma": 0.9}, lambda o: torchs.ExponentialLR(o, 0.9), PER_EPOCH),
    ("cosine", {"by_epoch": True}, lambda o: torchs.CosineAnnealingLR(o, TOTAL // PER_EPOCH), PER_EPOCH),
    (
        "cyclic",
        {"lowest": 0.1, "up": 7, "down": 13, "unit": "step"},
        lambda o: torchs.CyclicLR(o, 0.1, 1.0, 7, 13, cycle_momentum=False),
        1,
    ),
    (
        "cyclic",
        {"lowest": 0.2, "up": 10, "mode": "triangular2", "unit": "step"},
        lambda o: torchs.CyclicLR(o, 0.2, 1.0, 10, mode="triangular2", cycle_momentum=False),
        1,
    ),
    (
        "cyclic",
        {"lowest": 0.2, "up": 10, "mode": "exp_range", "gamma": 0.98, "unit": "step"},
        lambda o: torchs.CyclicLR(o, 0.2, 1.0, 10, mode="exp_range", gamma=0.98, cycle_momentum=False),
        1,
    ),
    (
        "cosine-restarts",
        {"period": 9, "growth": 2, "final": 0.01, "unit": "step"},
        lambda o: torchs.CosineAnnealingWarmRestarts(o, 9, 2, eta_min=0.01),
        1,
    ),
    (
        "cosine-restarts",
        {"period": 1.5},
        lambda o: torchs.CosineAnnealingWarmRestarts(o, 15),
        1,
    ),
    (
        "one-cycle",
        {"rise": 0.3, "start": 0.04, "final": 4e-6},
        lambda o: torchs.OneCycleLR(o, 1.0, TOTAL, div_factor=25, cycle_momentum=False),
        1,
    ),
    (
        "one-cycle",
        {"rise": 0.25, "start": 0.1, "final": 1e-4, "shape": "linear"},
        lambda o: torchs.OneCycleLR(
            o, 1.0, TOTAL, pct_start=0.25, div_factor=10, final_div_factor=1e3, anneal_strategy="linear",
            cycle_momentum=False,
        ),
        1,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "oracle", "every"), ORACLES)
def test_the_schedule_is_pytorchs(
    name: str, args: dict[str, Any], oracle: Callable[[torch.optim.Optimizer], Any], every: int
) -> None:
    factor = build_schedule(ScheduleRecipe(name=name, args=args), total=TOTAL, per_epoch=PER_EPOCH)
    assert [factor(step) for step in range(TOTAL)] == pytest.approx(rates(oracle, every), abs=1e-9)


def test_rates_in_the_recipe_are_those_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "rates.txt").write_text("0: 0.01\n5: .05\n10: .1\n")
    written = build_schedule(
        ScheduleRecipe(name="from-file", args={"path": str(tmp_path / "rates.txt")}), total=TOTAL, per_epoch=PER_EPOCH
    )
    inline = build_schedule(
        ScheduleRecipe(name="rates", args={"starts": [0, 5, 10], "rates": [0.01, 0.05, 0.1]}),
        total=TOTAL,
        per_epoch=PER_EPOCH,
    )
    assert [inline(s) for s in range(TOTAL)] == [written(s) for s in range(TOTAL)]
    assert [inline(s) for s in (0, 49, 50, 99, 100, 119)] == [0.01, 0.01, 0.05, 0.05, 0.1, 0.1]


def test_every_schedule_the_reference_lists_is_here() -> None:
    listed = {"inverse", "multiplicative", "step", "multistep", "exponential", "cyclic", "cosine", "cosine-restarts"}
    assert listed | {"one-cycle", "from-file"} <= set(SCHEDULES)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("step", {"every": 0}, "every must be positive, got 0"),
        ("cyclic", {"mode": "triangle"}, "unknown cyclic mode 'triangle'; did you mean 'triangular'"),
        ("cosine-restarts", {"growth": 0.5}, "growth of at least 1"),
        ("one-cycle", {"rise": 1.0}, r"rise in \(0, 1\)"),
        ("one-cycle", {"shape": "cos"}, "unknown one-cycle shape"),
        ("exponential", {"unit": "epochs"}, "did you mean 'epoch'"),
        ("multiplicative", {"factors": []}, "at least one factor"),
        ("rates", {"starts": [1, 2], "rates": [1, 2]}, "rising starts, from 0"),
        ("rates", {"starts": [0, 2], "rates": [1]}, "as many"),
    ],
)
def test_impossible_arguments_are_refused(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_schedule(ScheduleRecipe(name=name, args=args), total=TOTAL, per_epoch=PER_EPOCH)
