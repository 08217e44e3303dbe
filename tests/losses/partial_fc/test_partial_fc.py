"""Sampling of classes, the optimizer that walks only sampled rows, regularizers, and saved rows."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from visavis.errors import ModelFormatError, RecipeError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.regularizers import norm_weights
from visavis.losses.partial_fc.sampling import draw_classes, keep_positives, step_generator
from visavis.losses.partial_fc.sharded_checkpoint import (
    load_module_state,
    load_optimizer_state,
    module_state,
    optimizer_state,
)
from visavis.losses.partial_fc.sparse_sgd import SparseSGD


@pytest.mark.parametrize(("classes", "count"), [(1, 1), (10, 10), (10, 7), (1000, 10), (37, 30)])
def test_drawn_classes_are_different_and_as_many_as_asked(classes, count):
    for step in range(20):
        drawn = draw_classes(classes, count, step_generator(1, "classes", step))
        assert len(drawn) == len(set(drawn.tolist())) == count
        assert 0 <= drawn.min() <= drawn.max() < classes


def test_every_class_is_drawn_equally_often():
    draws = 6000
    for classes, count in ((23, 7), (23, 18)):
        counts = torch.zeros(classes)
        for step in range(draws):
            counts[draw_classes(classes, count, step_generator(0, "classes", step))] += 1
        rate = count / classes
        spread = (draws * rate * (1 - rate)) ** 0.5
        assert ((counts - draws * rate).abs() / spread).max() < 4.5


def test_all_positives_are_kept():
    drawn, labels = torch.tensor([2, 9, 14]), torch.tensor([3, 9, 3, 17])
    assert keep_positives(drawn, labels, 0, 20).tolist() == [2, 3, 9, 14, 17]
    assert keep_positives(drawn, labels, 10, 20).tolist() == [4, 7]


def sampled(rate, *, sparse, classes=50, **kw):
    torch.manual_seed(0)
    args = {"num_classes": classes, "dim": 8, "seed": 3, "sample_rate": rate, "sparse": sparse, **kw}
    return MarginSoftmax(build_head("arcface"), **args).double()


def test_a_sampled_step_is_the_loss_over_the_sampled_classes():
    module = sampled(0.3, sparse=True)
    x, labels = torch.randn(6, 8, dtype=torch.double), torch.tensor([0, 7, 7, 20, 33, 49])
    rows = keep_positives(draw_classes(50, 15, step_generator(3, "classes", 0)), labels, 0, 50)
    loss = module(x, labels)
    loss.backward()
    smaller = MarginSoftmax(build_head("arcface"), num_classes=len(rows), dim=8).double()
    with torch.no_grad():
        smaller.weight.copy_(module.weight[rows])
    wanted = smaller(x, torch.searchsorted(rows, labels))
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    gradient = module.weight.grad.coalesce()
    assert torch.equal(gradient.indices()[0], rows)
    torch.testing.assert_close(gradient.values(), smaller.weight.grad)
    second = module(x, labels)  # other classes at the next step, all of them in evaluation
    assert second.item() != loss.item()
    everything = module.eval()(x, labels).item()
    assert everything == sampled(1.0, sparse=False)(x, labels).item()


def test_dense_and_sparse_gradients_agree():
    x, labels = torch.randn(6, 8, dtype=torch.double), torch.arange(6)
    gradients = []
    for sparse in (False, True):
        module = sampled(0.3, sparse=sparse, sub_centers=2)
        module(x, labels).backward()
        gradients.append(module.weight.grad.to_dense())
    assert torch.equal(*gradients)


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


def test_a_million_classes_are_one_parameter_and_nothing_else_of_their_size():
    module = MarginSoftmax(build_head("cosface"), num_classes=1_000_000, dim=16, sample_rate=0.001, sparse=True, seed=0)
    x = torch.randn(8, 16, requires_grad=True)
    loss = module(x, torch.randint(0, 1_000_000, (8,)))
    loss.backward()
    assert 1000 <= module.weight.grad._nnz() <= 1008
    assert torch.isfinite(loss)


def test_clipping_and_accumulation_work_on_sparse_gradients():
    module = sampled(0.2, sparse=True)
    for _ in range(2):
        module(torch.randn(6, 8, dtype=torch.double), torch.arange(6)).backward()
    dense = module.weight.grad.to_dense().norm()
    assert torch.nn.utils.clip_grad_norm_(module.parameters(), 1e9).item() == pytest.approx(dense.item())


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


@pytest.mark.parametrize(
    ("kw", "said"),
    [
        ({"sample_rate": 0.0}, r"sample_rate must lie in \(0, 1\]"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"center_loss": -1.0}, "center_loss"),
        ({"norm_weight_power": -1.0}, "norm_weight_power"),
        ({"chunk": 0}, "chunk"),
        ({"sub_centers": 1.5}, "sub_centers"),
    ],
)
def test_impossible_settings_are_refused(kw, said):
    with pytest.raises(RecipeError, match=said):
        MarginSoftmax(build_head("arcface"), num_classes=5, dim=4, **kw)
