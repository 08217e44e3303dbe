"""The loss against the published formula, and what happens at its edges."""

from __future__ import annotations

import copy

import pytest
import torch

from visavis.errors import RecipeError
from visavis.losses.triplets import MINERS, build_miner
from visavis.losses.triplets.distances import squared_l2, unit_rows
from visavis.losses.triplets.loss import TripletObjective, triplet_loss
from visavis.types import Triplets

LABELS = torch.tensor([3, 1, 3, 1, 1, 7, 3, 9])


def rows(seed: int = 0, n: int = 8, dim: int = 5) -> torch.Tensor:
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_the_mean_over_triplets_of_the_formula(soft: bool) -> None:
    x = rows().requires_grad_()
    t = MINERS["batch_all"](squared_l2(unit_rows(x), unit_rows(x)), LABELS, margin=0.7)
    assert len(t) > 10
    terms = []
    for a, p, n in zip(t.anchor, t.positive, t.negative, strict=True):
        unit = [x[i] / (x[i] ** 2).sum().sqrt() for i in (a, p, n)]
        gap = ((unit[0] - unit[1]) ** 2).sum() - ((unit[0] - unit[2]) ** 2).sum()
        terms.append(torch.log1p(torch.exp(gap)) if soft else torch.clamp(gap + 0.7, min=0.0))
    expected = sum(terms) / len(terms)
    (want,) = torch.autograd.grad(expected, x)
    objective = TripletObjective(miner="batch_all", margin=0.7, soft_margin=soft)
    loss = objective(x, LABELS)
    (got,) = torch.autograd.grad(loss, x)
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(got, want, atol=1e-12, rtol=0)
    assert objective.last["triplets"] == len(t)
    assert float(objective.last["active"]) == 1.0


@pytest.mark.parametrize("miner", MINERS)
def test_no_triplet_gives_a_zero_that_can_be_trained_on(miner: str) -> None:
    x = rows(n=3).requires_grad_()
    loss = TripletObjective(miner=miner)(x, torch.tensor([0, 1, 2]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_given_triplets_spare_the_mining() -> None:
    x = rows()
    objective = TripletObjective(miner="batch_hardest", margin=0.5)
    t = Triplets(torch.tensor([0]).numpy(), torch.tensor([2]).numpy(), torch.tensor([1]).numpy())
    d = squared_l2(unit_rows(x), unit_rows(x))
    assert float(objective(x, LABELS, t)) == pytest.approx(max(0.0, float(d[0, 2] - d[0, 1]) + 0.5), abs=1e-12)
    assert float(triplet_loss(d, t, margin=4.0)) == pytest.approx(float(d[0, 2] - d[0, 1]) + 4.0)


def test_draws_continue_where_the_state_says() -> None:
    x, labels = rows(n=60, dim=8), torch.arange(60) // 3
    one = TripletObjective(miner="batch_random", margin=4.0, seed=4)
    before = [float(one(x, labels)) for _ in range(2)]
    assert before[0] != before[1]
    state = copy.deepcopy(one.state_dict())
    after = [float(one(x, labels)) for _ in range(3)]
    two = TripletObjective(miner="batch_random", margin=4.0, seed=4)
    two.load_state_dict(state)
    assert [float(two(x, labels)) for _ in range(3)] == after


def test_wrong_settings_say_what_there_is() -> None:
    with pytest.raises(RecipeError, match="unknown miner 'batch_hard'; did you mean 'batch_hardest'"):
        TripletObjective(miner="batch_hard")
    with pytest.raises(RecipeError, match="semi_hard knows no option 'legacy'; it has none"):
        build_miner("semi_hard", legacy=True)
    with pytest.raises(RecipeError, match="batch_all knows no option 'limit'; it has legacy, max_triplets"):
        TripletObjective(miner="batch_all", miner_args={"limit": 3})
    with pytest.raises(RecipeError, match=r"triplet.margin must lie in \[0, 4\]"):
        TripletObjective(miner="batch_all", margin=-0.1)
