"""The optimizer that walks only sampled rows."""

import pytest
import torch

from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sparse_sgd import SparseSGD


def sampled(rate, *, sparse, classes=50, **kw):
    torch.manual_seed(0)
    args = {"num_classes": classes, "dim": 8, "seed": 3, "sample_rate": rate, "sparse": sparse, **kw}
    return MarginSoftmax(build_head("arcface"), **args).double()


@pytest.mark.parametrize("nesterov", [False, True])
def test_row_sgd_equals_torch_sgd_where_every_row_is_present(nesterov):
    ends = []
    for build, rate in ((torch.optim.SGD, 1.0), (SparseSGD, 1.0), (SparseSGD, 0.999)):
        module = sampled(rate, sparse=True)  # 0.999 of 50 classes draws all 50, through the sparse path
        optimizer = build(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=nesterov)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(6, 8, dtype=torch.double, generator=generator)
            optimizer.zero_grad()
            module(x, torch.randint(0, 50, (6,), generator=generator)).backward()
            optimizer.step()
        ends.append(module.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
    torch.testing.assert_close(ends[0], ends[2], rtol=0, atol=1e-14)


def test_rows_that_were_not_sampled_are_not_touched():
    module = sampled(0.1, sparse=True, classes=500)
    optimizer = SparseSGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    touched = torch.zeros(500, dtype=torch.bool)
    before = module.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        module(torch.randn(4, 8, dtype=torch.double), torch.randint(0, 500, (4,))).backward()
        touched[module.weight.grad.coalesce().indices()[0]] = True
        optimizer.step()
    changed = (module.weight.detach() != before).any(1)
    assert torch.equal(changed, touched)
    assert torch.equal((optimizer.state[module.weight]["momentum_buffer"] != 0).any(1), touched)
    assert touched.sum() < 200
