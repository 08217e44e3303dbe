"""Saved rows."""

import pytest
import torch

from visavis.errors import ModelFormatError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sharded_checkpoint import (
    _entry,
    load_module_state,
    load_optimizer_state,
    module_state,
    optimizer_state,
)
from visavis.losses.partial_fc.sparse_sgd import SparseSGD


def sampled(rate, *, sparse, classes=50, **kw):
    torch.manual_seed(0)
    args = {"num_classes": classes, "dim": 8, "seed": 3, "sample_rate": rate, "sparse": sparse, **kw}
    return MarginSoftmax(build_head("arcface"), **args).double()


def test_a_checkpoint_of_other_classes_is_refused():
    module = sampled(1.0, sparse=False)
    optimizer = SparseSGD(module.parameters(), lr=0.1, momentum=0.9)
    module.weight.grad = torch.ones_like(module.weight)
    optimizer.step()
    state, entries = module_state(module), optimizer_state(optimizer, module)
    other = sampled(1.0, sparse=False, classes=40)
    with pytest.raises(ModelFormatError, match=r"weight has shape \(40, \d+\), got \(50, \d+\)"):
        load_module_state(other, state)
    with pytest.raises(ModelFormatError, match=r"'momentum_buffer' of weight has shape \(40, \d+\), got \(50, \d+\)"):
        load_optimizer_state(SparseSGD(other.parameters(), lr=0.1), other, entries)
    with pytest.raises(ModelFormatError, match=r"knows a parameter 'gone'"):
        load_optimizer_state(optimizer, module, {"gone": entries["weight"]})
    with pytest.raises(ModelFormatError, match="does not fit"):
        load_module_state(sampled(1.0, sparse=False, center_loss=0.1), state)


def test_plain_numbers_of_an_optimizer_stay_as_they_are():
    parameter = torch.zeros(4, 3)
    assert _entry("step", 7, parameter, None) == 7
    assert _entry("step", 7, parameter, (0, 8)) == 7
    momentum = torch.arange(12.0).view(4, 3)
    assert torch.equal(_entry("momentum_buffer", momentum, parameter, None), momentum)
