"""Center loss and weights by norm."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.regularizers import norm_weights


def sampled(rate, *, sparse, classes=50, **kw):
    torch.manual_seed(0)
    args = {"num_classes": classes, "dim": 8, "seed": 3, "sample_rate": rate, "sparse": sparse, **kw}
    return MarginSoftmax(build_head("arcface"), **args).double()


def test_center_loss_is_the_papers_and_moves_its_centers():
    torch.manual_seed(0)
    module = sampled(1.0, sparse=False, center_loss=0.2)
    plain = sampled(1.0, sparse=False)
    x = torch.randn(5, 8, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([4, 4, 4, 9, 30])
    torch.nn.init.normal_(module.centers.means)
    before = module.centers.means.clone()
    loss = module(x, labels)
    wanted = plain(x, labels) + 0.2 * 0.5 * (x - before[labels]).square().sum(1).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(value, x)[0] for value in (loss, wanted)))
    moved = before.clone()
    moved[4] -= 0.5 * (3 * before[4] - x[:3].detach().sum(0)) / 4
    moved[9] -= 0.5 * (before[9] - x[3].detach()) / 2
    moved[30] -= 0.5 * (before[30] - x[4].detach()) / 2
    torch.testing.assert_close(module.centers.means, moved)


def test_norm_weights_have_mean_one_and_follow_the_norm():
    torch.manual_seed(0)
    x = torch.randn(6, 8, dtype=torch.double)
    labels = torch.arange(6)
    weights = norm_weights(x.norm(dim=1), 2.0)
    assert weights.mean().item() == pytest.approx(1.0)
    torch.testing.assert_close(weights / weights[0], x.norm(dim=1).square() / x[0].norm() ** 2)
    module = sampled(1.0, sparse=False, norm_weight_power=2.0)
    cosine = normalize(x) @ normalize(module.weight.detach()).T
    target = cosine.gather(1, labels[:, None])
    rows = cross_entropy(
        64 * cosine.scatter(1, labels[:, None], (target.arccos() + 0.5).cos()), labels, reduction="none"
    )
    assert module(x, labels).item() == pytest.approx((weights * rows).mean().item(), rel=1e-9)
