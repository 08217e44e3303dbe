"""The moving average."""

import torch

from visavis.train.optimizers import ExponentialMovingAverage


def test_the_average_takes_nothing_that_is_not_finite():
    network = torch.nn.Linear(2, 2)
    average = ExponentialMovingAverage(network, 0.9)
    before = {name: value.clone() for name, value in average.values.items()}
    network.weight.data[0, 0] = float("nan")
    average.update(network)
    assert average.updates == 0
    assert all(torch.equal(value, before[name]) for name, value in average.values.items())
