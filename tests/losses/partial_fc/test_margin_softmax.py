"""The streamed loss against the plain formula under autograd, in float64."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from visavis.errors import DataError, RecipeError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax

B, D, C = 16, 8, 37


def plain_logits(name, x, weight, bias, labels, **args):
    """The published formula, every logit written down."""
    if name == "softmax":
        return x @ weight.T + bias
    cosine = normalize(x) @ normalize(weight).T
    target = cosine.gather(1, labels[:, None])
    theta = target.arccos()
    if name == "cosface":
        psi = target - args["margin"]
    else:
        m = args["margin"]
        psi = torch.where(theta + m <= math.pi, (theta + m).cos(), target - m * math.sin(m))
    return args.get("scale", 64.0) * cosine.scatter(1, labels[:, None], psi)


CASES = [
    ("softmax", {}),
    ("cosface", {"margin": 0.35, "scale": 16.0}),
    ("cosface", {"margin": 0.0, "scale": 64.0}),
    ("arcface", {"margin": 0.5, "scale": 64.0}),
    ("arcface", {"margin": 1.2, "scale": 10.0}),  # most targets past π − m
]


@pytest.mark.parametrize(("chunk", "keep"), [(64, 1 << 20), (5, 1 << 20), (7, 0), (1, 0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "args"), CASES)
def test_loss_and_gradients_equal_autograd_of_the_plain_formula(name, args, smoothing, chunk, keep):
    torch.manual_seed(1)
    head = MarginSoftmax(
        build_head(name, **args), num_classes=C, dim=D, chunk=chunk, keep=keep, label_smoothing=smoothing
    ).double()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    x = torch.randn(B, D, dtype=torch.double, requires_grad=True)
    labels = torch.randint(0, C, (B,))
    labels[:3] = torch.tensor([0, C - 1, C - 1])
    head(x, labels).backward()
    plain = [p.detach().clone().requires_grad_() for p in (x, head.weight, *([] if head.bias is None else [head.bias]))]
    z = plain_logits(name, plain[0], plain[1], plain[-1], labels, **args)
    loss = cross_entropy(z, labels, label_smoothing=smoothing)
    loss.backward()
    assert abs(head.last.loss.item() - loss.item()) < 1e-12
    for ours, theirs in zip((x, *head.parameters()), plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)


def test_accuracy_and_mean_target_cosine_come_for_free():
    torch.manual_seed(2)
    head = MarginSoftmax(build_head("arcface"), num_classes=C, dim=D, chunk=9)
    labels = torch.arange(10)
    x = head.weight.detach()[labels] * 3
    x[:4] = head.weight.detach()[20:24]
    head(x, labels)
    assert head.last.accuracy.item() == pytest.approx(0.6)
    assert (head.logits(x).argmax(1) == labels).float().mean().item() == pytest.approx(0.6)
    cosine = (normalize(x) * normalize(head.weight.detach()[labels])).sum(1).mean()
    assert head.last.target_cosine.item() == pytest.approx(cosine.item(), abs=1e-6)


def test_detached_margin_gives_the_gradient_of_the_published_shortcut():
    torch.manual_seed(3)
    head = MarginSoftmax(build_head("arcface", detach_margin=True), num_classes=C, dim=D, chunk=9).double()
    x = torch.randn(B, D, dtype=torch.double, requires_grad=True)
    labels = torch.randint(0, C, (B,))
    head(x, labels).backward()
    weight, y = head.weight.detach().clone().requires_grad_(), x.detach().clone().requires_grad_()
    cosine = normalize(y) @ normalize(weight).T
    with torch.no_grad():  # the margin changes the values in place, behind autograd's back
        shift = plain_logits("arcface", y, weight, None, labels, margin=0.5, scale=1.0) - cosine
    cross_entropy(64 * (cosine + shift), labels).backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(head.weight.grad, weight.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_input_is_computed_in_float32(dtype):
    torch.manual_seed(4)
    head = MarginSoftmax(build_head("arcface"), num_classes=C, dim=D)
    x = torch.randn(B, D).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(x, torch.randint(0, C, (B,)))
    loss.backward()
    assert loss.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert torch.isfinite(x.grad).all()


def test_gradients_are_released_and_can_be_taken_twice():
    head = MarginSoftmax(build_head("cosface"), num_classes=C, dim=D, chunk=10).double()
    x = torch.randn(B, D, dtype=torch.double, requires_grad=True)
    loss = head(x, torch.randint(0, C, (B,)))
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    second = torch.autograd.grad(loss, x)[0]
    assert torch.equal(first, second)


def test_errors_say_what_was_expected():
    head = MarginSoftmax(build_head("cosface"), num_classes=C, dim=D)
    with pytest.raises(DataError, match=r"labels must lie in \[0, 37\), got 3 to 37"):
        head(torch.randn(2, D), torch.tensor([3, 37]))
    with pytest.raises(DataError, match=r"expected embeddings \(B, 8\)"):
        head(torch.randn(2, D + 1), torch.tensor([3, 5]))
    with pytest.raises(DataError, match="empty"):
        head(torch.randn(0, D), torch.zeros(0, dtype=torch.long))
    with pytest.raises(RecipeError, match=r"28.6 \(28.6 degrees is 0.499 radians\)|28.6 degrees"):
        build_head("arcface", margin=28.6)
    with pytest.raises(RecipeError, match="did you mean 'arcface'"):
        build_head("arcfase")
    with pytest.raises(RecipeError, match="did you mean 'margin'"):
        build_head("arcface", margn=0.5)
    with pytest.raises(RecipeError, match="num_classes"):
        MarginSoftmax(build_head("cosface"), num_classes=0, dim=D)
