"""Sampling of classes, the optimizer that walks only sampled rows, regularizers, and saved rows."""

import pytest
import torch

from visavis.errors import RecipeError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.losses.partial_fc.sampling import draw_classes, keep_positives, step_generator


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


@pytest.mark.parametrize("sparse", [False, True])
def test_label_smoothing_shares_among_the_classes_considered_alone(sparse):
    """ε/K over the K sampled classes, as cross_entropy of their logits has it; not ε/C over all 50."""
    smoothing = 0.2
    args = {"num_classes": 50, "dim": 8, "seed": 3, "sample_rate": 0.3, "sparse": sparse, "label_smoothing": smoothing}
    torch.manual_seed(0)
    module = MarginSoftmax(build_head("normface", scale=16.0), **args).double()
    x, labels = torch.randn(6, 8, dtype=torch.double), torch.tensor([0, 7, 7, 20, 33, 49])
    rows = keep_positives(draw_classes(50, 15, step_generator(3, "classes", 0)), labels, 0, 50)
    assert len(rows) < 25
    weight = module.weight.detach()[rows].requires_grad_()
    logits = 16.0 * torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(weight).T
    wanted = torch.nn.functional.cross_entropy(logits, torch.searchsorted(rows, labels), label_smoothing=smoothing)
    wanted.backward()
    loss = module(x, labels)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    torch.testing.assert_close(module.weight.grad.to_dense()[rows], weight.grad)


def test_dense_and_sparse_gradients_agree():
    x, labels = torch.randn(6, 8, dtype=torch.double), torch.arange(6)
    gradients = []
    for sparse in (False, True):
        module = sampled(0.3, sparse=sparse, sub_centers=2)
        module(x, labels).backward()
        gradients.append(module.weight.grad.to_dense())
    assert torch.equal(*gradients)


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
