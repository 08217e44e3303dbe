"""Parameter groups, clipping, and the moving average."""

import pytest
import torch
from torch import nn

from visavis.train.optimizers import ExponentialMovingAverage, build_optimizer, clip_gradients
from visavis.train.recipe import OptimizerRecipe


def test_the_average_takes_nothing_that_is_not_finite():
    network = torch.nn.Linear(2, 2)
    average = ExponentialMovingAverage(network, 0.9)
    before = {name: value.clone() for name, value in average.values.items()}
    network.weight.data[0, 0] = float("nan")
    average.update(network)
    assert average.updates == 0
    assert all(torch.equal(value, before[name]) for name, value in average.values.items())


def recipe(**values):
    return OptimizerRecipe(**{"lr": 0.1, "weight_decay": 5e-4, **values})


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("values", "free"),
    [
        ({}, set()),
        ({"decay_norms": False}, {"1.weight", "1.bias"}),  # AdaFace: batch norms alone, PReLU and biases decay
        ({"decay_norms_and_biases": False}, {"0.bias", "1.weight", "1.bias", "2.weight", "4.bias"}),
        # Row S8: none on bias, gamma and beta, PReLU decays.
        ({"decay_norms_and_biases": False, "decay_prelu": True}, {"0.bias", "1.weight", "1.bias", "4.bias"}),
    ],
)
def test_what_has_no_weight_decay(values, free):
    built = network()
    groups = build_optimizer(built, [], recipe(**values), lr=0.1).param_groups
    names = {id(p): name for name, p in built.named_parameters()}
    found = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert found == free
    assert sum(len(group["params"]) for group in groups) == 7


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adadelta", lambda p: torch.optim.Adadelta(p, lr=0.1, rho=0.95, eps=1e-6, weight_decay=5e-4)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.95, eps=1e-6, momentum=0.9, weight_decay=5e-4)),
    ],
)
def test_the_optimizers_of_row_m9_step_as_torchs(name, theirs):
    ours, plain = network(), network()
    steps = (build_optimizer(ours, [], recipe(name=name, rho=0.95, eps=1e-6), lr=0.1), theirs(plain.parameters()))
    x = torch.randn(8, 3, 3, 3)
    for _ in range(3):
        for model, step in zip((ours, plain), steps, strict=True):
            step.zero_grad()
            model(x).square().mean().backward()
            step.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("alone", [False, True])
def test_clipping_takes_all_or_the_backbone_alone(alone):
    backbone, head = nn.Linear(3, 3), nn.Linear(3, 3)
    for module, size in ((backbone, 3.0), (head, 4.0)):
        for p in module.parameters():
            p.grad = torch.zeros_like(p)
        module.weight.grad[0, 0] = size
    norm, stop = clip_gradients(backbone, head, 1.0, backbone_alone=alone)
    assert (norm.item(), stop) == (5.0, False)
    found = (backbone.weight.grad.norm().item(), head.weight.grad.norm().item())
    assert found == pytest.approx((1.0, 4.0) if alone else (0.6, 0.8))
