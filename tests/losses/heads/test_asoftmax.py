"""λ of A-Softmax over the steps: the default never falls below its minimum, row S6's original does and then jumps."""

import pytest
import torch

from visavis.losses.heads import build_head


def annealed(step: int, **args) -> float:
    head = build_head("asoftmax", **args)
    head.iteration.fill_(step - 1)
    head.update_state(torch.zeros(2), torch.ones(2))
    return head.annealing


@pytest.mark.parametrize("step", [1, 10, 1000, 2949])
def test_both_follow_the_published_decay_while_it_is_above_the_minimum(step):
    for legacy in (False, True):
        assert annealed(step, legacy_schedule=legacy) == pytest.approx(1500 / (1 + 0.1 * step), rel=1e-12)


def test_s6_falls_below_five_before_it_jumps_back():
    assert annealed(2999, legacy_schedule=True) == pytest.approx(1500 / 300.9)  # 4.985
    assert annealed(3000, legacy_schedule=True) == annealed(50_000, legacy_schedule=True) == 5.0
    assert annealed(2999) == annealed(3000) == annealed(50_000) == 5.0


def test_the_step_is_part_of_the_state_so_that_a_resumed_run_goes_on():
    """Row S11: the original starts at 1500 again."""
    first, second = build_head("asoftmax"), build_head("asoftmax")
    first.iteration.fill_(700)
    second.load_state_dict(first.state_dict())
    assert second.annealing == first.annealing == pytest.approx(1500 / 71)
