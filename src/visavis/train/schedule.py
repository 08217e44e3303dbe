"""Learning rate schedules: each a pure function of the step, so that a resumed run needs no state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visavis.errors import RecipeError, unknown_name
from visavis.train.lr_curves import (
    Factor,
    cosine_restarts,
    cyclic,
    exponential,
    inverse,
    multiplicative,
    one_cycle,
    piecewise,
    step_decay,
)
from visavis.train.recipe import ScheduleRecipe


def constant(total: int, per_epoch: int) -> Factor:
    """factor = 1."""
    return lambda step: 1.0


def cosine(total: int, per_epoch: int, *, final: float = 0.0, by_epoch: bool = False, t_max: float = 0.0) -> Factor:
    """factor = f + (1 − f)·(1 + cos(π·t/T)) / 2 with f = `final`. arXiv 1608.03983v5, equation 5, one period.

    With `by_epoch` t is the start of the epoch, so that the rate falls in steps (row S8). T is `t_max` epochs, or the
    whole run where that is 0; past T the rate rises again, as torch's CosineAnnealingLR(T_max) does. `final` is eta_min
    over the base rate.
    """
    if t_max < 0:
        raise RecipeError(f"schedule.args.t_max is a number of epochs, at least 0, got {t_max}")
    length = t_max * per_epoch if t_max else total

    def factor(step: float) -> float:
        t = step // per_epoch * per_epoch if by_epoch else step
        done = t / max(1, length)
        return final + (1 - final) * (1 + math.cos(math.pi * (done if t_max else min(1.0, done)))) / 2

    return factor


def polynomial(total: int, per_epoch: int, *, power: float = 1.0, final: float = 0.0) -> Factor:
    """factor = f + (1 − f)·(1 − t/T)^power; power 2 is arcface_torch's."""
    return lambda step: final + (1 - final) * (1 - min(1.0, step / max(1, total))) ** power


def multistep(
    total: int,
    per_epoch: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75, 0.9),
    gamma: float = 0.1,
    unit: str = "share",
) -> Factor:
    """factor = gamma^(number of milestones passed); `unit` of the milestones: share (of the run), step or epoch."""
    units = {"share": total, "step": 1, "epoch": per_epoch}
    if unit not in units:
        raise RecipeError(unknown_name("milestone unit", unit, units))
    if unit == "share" and any(not 0 < milestone < 1 for milestone in milestones):
        raise RecipeError(
            f"schedule.args.milestones are shares of the run, in (0, 1), got {list(milestones)}; for epochs or steps "
            "add schedule.args.unit epoch (or step)"
        )
    steps = [milestone * units[unit] for milestone in milestones]
    return lambda step: gamma ** sum(step >= milestone for milestone in steps)


def from_file(total: int, per_epoch: int, *, path: str, unit: str = "epoch") -> Factor:
    """Learning rates from lines `start: rate` (reference-systems row M9); the base rate should be 1.

    The last row holds to the end of the run (the original returned None there, row M21).
    """
    rows = read_rate_file(path)
    scale = per_epoch if unit == "epoch" else 1

    def factor(step: float) -> float:
        passed = [rate for start, rate in rows if step >= start * scale]
        return passed[-1] if passed else rows[0][1]

    return factor


def read_rate_file(path: str) -> list[tuple[float, float]]:
    """Read `start: rate` lines in rising order; # begins a comment.

    Raises:
        RecipeError: the file cannot be read, or a line is not two numbers; the line is named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot read the learning rates ({error})") from error
    rows: list[tuple[float, float]] = []
    for number, line in enumerate(lines, 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        try:
            start, rate = (float(word) for word in line.split(":"))
        except ValueError as error:
            raise RecipeError(f"{path}:{number}: expected 'start: rate', got {line!r}") from error
        if rows and start <= rows[-1][0]:
            raise RecipeError(f"{path}:{number}: starts must rise, got {start:g} after {rows[-1][0]:g}")
        rows.append((start, rate))
    if not rows:
        raise RecipeError(f"{path}: expected lines 'start: rate', got none")
    return rows


SCHEDULES: dict[str, Callable[..., Factor]] = {
    "constant": constant,
    "cosine": cosine,
    "cosine-restarts": cosine_restarts,
    "cyclic": cyclic,
    "exponential": exponential,
    "from-file": from_file,
    "inverse": inverse,
    "multiplicative": multiplicative,
    "multistep": multistep,
    "one-cycle": one_cycle,
    "polynomial": polynomial,
    "rates": piecewise,
    "step": step_decay,
}


def build_schedule(recipe: ScheduleRecipe, *, total: int, per_epoch: int) -> Factor:
    """The factor on the learning rate at a step, warm-up included.

    The schedule proper runs over the steps after the warm-up.

    Raises:
        RecipeError: unknown name or argument.
    """
    if recipe.name not in SCHEDULES:
        raise RecipeError(unknown_name("schedule", recipe.name, SCHEDULES))
    builder = SCHEDULES[recipe.name]
    check_arguments("schedule", recipe.name, builder, recipe.args)
    if recipe.warmup_steps and recipe.warmup_epochs:
        raise RecipeError("schedule.warmup_steps and schedule.warmup_epochs say the same; leave one out")
    warmup = recipe.warmup_steps or round(recipe.warmup_epochs * per_epoch)
    after = builder(max(1, total - warmup), per_epoch, **recipe.args)

    def factor(step: float) -> float:
        if step >= warmup:
            return after(step - warmup)
        share = (step + 1) / warmup if recipe.warmup == "linear" else 0.0
        return (recipe.warmup_start + (1 - recipe.warmup_start) * share) * after(0)

    return factor


def check_arguments(kind: str, name: str, builder: Callable[..., Any], given: dict[str, Any]) -> None:
    """Refuse arguments that `builder` has no keyword for.

    Raises:
        RecipeError: names the nearest keyword.
    """
    keywords = [p.name for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key in given:
        if key not in keywords:
            raise RecipeError(unknown_name(f"argument of {kind} {name!r}", key, keywords))
