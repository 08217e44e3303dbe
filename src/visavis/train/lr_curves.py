"""More shapes a learning rate can take: the schedules the SphereFace reference lists beside cosine (row S8).

Each takes the steps of the run and of an epoch and gives factor(step) on the base rate; `unit` says what its lengths
count: share (of the run), step or epoch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from visavis.errors import RecipeError, unknown_name

Factor = Callable[[float], float]  # step -> factor on the base learning rate


def inverse(total: int, per_epoch: int, *, gain: float = 0.1, power: float = 1.0, unit: str = "step") -> Factor:
    """factor = 1 / (1 + gain·t)^power, t in steps or epochs: the usual rule given to a Lambda schedule (row S8)."""
    size = _unit(unit, total, per_epoch)
    return lambda step: (1 + gain * step / size) ** -power


def exponential(total: int, per_epoch: int, *, gamma: float = 0.95, unit: str = "epoch") -> Factor:
    """factor = gamma^⌊t⌋ with t in the unit (row S8: once per epoch); also Multiplicative by a constant."""
    size = _unit(unit, total, per_epoch)
    return lambda step: gamma ** math.floor(step / size)


def multiplicative(total: int, per_epoch: int, *, factors: Sequence[float] = (0.95,), unit: str = "epoch") -> Factor:
    """factor = Π_{i<⌊t⌋} factors[i], the last one for ever (row S8, Multiplicative); one factor is `exponential`."""
    size = _unit(unit, total, per_epoch)
    if not factors:
        raise RecipeError("schedule 'multiplicative' wants at least one factor")

    def factor(step: float) -> float:
        passed = math.floor(step / size)
        return math.prod(factors[:passed]) * factors[-1] ** max(0, passed - len(factors))

    return factor


def step_decay(total: int, per_epoch: int, *, every: float = 10, gamma: float = 0.1, unit: str = "epoch") -> Factor:
    """factor = gamma^⌊t / every⌋ (row S8, Step)."""
    size = _positive("every", every) * _unit(unit, total, per_epoch)
    return lambda step: gamma ** math.floor(step / size)


def piecewise(
    total: int, per_epoch: int, *, starts: Sequence[float] = (0,), rates: Sequence[float] = (1,), unit: str = "epoch"
) -> Factor:
    """factor = rates[i] from starts[i] on, the last to the end of the run; with a base rate of 1 they are the rates.

    What MassFace keeps in a file (row M9, where the rate was None after the last row: M21).
    """
    size = _unit(unit, total, per_epoch)
    if len(starts) != len(rates) or not len(starts) or starts[0] != 0 or list(starts) != sorted(set(starts)):
        raise RecipeError(f"schedule 'rates' wants as many rising starts, from 0, as rates; got {starts} and {rates}")
    return lambda step: rates[bisect_right(starts, step / size) - 1]


def cyclic(
    total: int,
    per_epoch: int,
    *,
    lowest: float = 0.1,
    up: float = 0.05,
    down: float = 0.0,
    mode: str = "triangular",
    gamma: float = 1.0,
    unit: str = "share",
) -> Factor:
    """factor = lowest + (1 − lowest)·x·a: a triangle x from 0 up to 1 and down again, over and over.

    a is 1, or 2^(−cycle) in mode "triangular2", or gamma^t (t in steps) in mode "exp_range". `up` and `down` are
    lengths in the unit; `down` 0 means as long as `up`. The base rate is the highest.

    Source: Smith, arXiv 1506.01186v6, section 3 (row S8, Cyclic).
    """
    size = _unit(unit, total, per_epoch)
    rise = _positive("up", up) * size
    fall = (down or up) * size
    modes: dict[str, Callable[[float, float], float]] = {
        "triangular": lambda cycle, step: 1.0,
        "triangular2": lambda cycle, step: 0.5**cycle,
        "exp_range": lambda cycle, step: gamma**step,
    }
    if mode not in modes:
        raise RecipeError(unknown_name("cyclic mode", mode, modes))

    def factor(step: float) -> float:
        cycle, within = divmod(step, rise + fall)
        height = within / rise if within < rise else (rise + fall - within) / fall
        return lowest + (1 - lowest) * height * modes[mode](cycle, step)

    return factor


def cosine_restarts(
    total: int, per_epoch: int, *, period: float = 10, growth: float = 1.0, final: float = 0.0, unit: str = "epoch"
) -> Factor:
    """Cosines from 1 to `final`, starting anew after `period` and then after `growth` times as long each.

    Source: Loshchilov and Hutter, arXiv 1608.03983v5, equation 5 (row S8, CosineWarmRestarts).
    """
    first = _positive("period", period) * _unit(unit, total, per_epoch)
    if growth < 1:
        raise RecipeError(f"schedule 'cosine-restarts' wants growth of at least 1, got {growth}")

    def factor(step: float) -> float:
        if growth == 1:
            within, length = step % first, first
        else:
            done = math.floor(math.log1p(step / first * (growth - 1)) / math.log(growth) + 1e-12)
            within, length = step - first * (growth**done - 1) / (growth - 1), first * growth**done
        return final + (1 - final) * (1 + math.cos(math.pi * within / length)) / 2

    return factor


def one_cycle(
    total: int, per_epoch: int, *, rise: float = 0.3, start: float = 0.04, final: float = 4e-6, shape: str = "cosine"
) -> Factor:
    """From `start` up to 1 over the share `rise` of the run, then down to `final`; along cosines or straight lines.

    Source: Smith and Topin, arXiv 1708.07120v3; defaults as torch's OneCycleLR (row S8, OneCycle).
    """
    if not 0 < rise < 1:
        raise RecipeError(f"schedule 'one-cycle' wants rise in (0, 1), got {rise}")
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
        "linear": lambda x: x,
    }
    if shape not in shapes:
        raise RecipeError(unknown_name("one-cycle shape", shape, shapes))
    peak, end = rise * total - 1, total - 1

    def factor(step: float) -> float:
        if step <= peak:
            return start + (1 - start) * shapes[shape](step / max(1.0, peak))
        return 1 + (final - 1) * shapes[shape](min(1.0, (step - peak) / max(1.0, end - peak)))

    return factor


def _unit(unit: str, total: int, per_epoch: int) -> float:
    units = {"share": total, "step": 1, "epoch": per_epoch}
    if unit not in units:
        raise RecipeError(unknown_name("schedule unit", unit, units))
    return max(1, units[unit])


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise RecipeError(f"schedule argument {name} must be positive, got {value}")
    return value
