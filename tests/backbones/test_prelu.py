"""PReLU equals torch's, values and gradients, in every layout, and exports as torch's."""

import pytest
import torch
from torch import nn

from visavis.backbones.prelu import PReLU


def both(x, *, channels, dtype=torch.float32):
    """Output and gradients of torch's and of ours on one input."""
    results = []
    for make in (nn.PReLU, PReLU):
        module = make(channels)
        with torch.no_grad():
            module.weight.copy_(torch.linspace(-0.5, 1.5, channels))
        module.to(dtype)
        given = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        out = module(given)
        out.backward(torch.sin(torch.arange(out.numel(), dtype=torch.float32)).to(dtype).view(out.shape))
        results.append((out.detach(), given.grad, module.weight.grad))
    return results


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(5, 6, 7, 4), (3, 6, 160, 160), (1, 1, 3, 3), (4, 6, 1, 1), (0, 6, 2, 2)])
def test_images(layout, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    x[x.abs() < 0.1] = 0.0  # at the corner too
    expected, found = both(x, channels=shape[1])
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=2e-6, atol=1e-5)
    assert found[1].stride() == expected[1].stride()


def test_vectors_double_precision_and_one_weight_for_all():
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for channels in (6, 1):
        expected, found = both(x, channels=channels, dtype=torch.float64)
        for ours, torchs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, torchs, rtol=1e-14, atol=1e-14)


def test_the_gradient_to_the_weights_of_bfloat16_is_summed_in_float32():
    x = -torch.ones(1 << 12, 1, 4, 4)
    module = PReLU(1)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x.bfloat16())
    y.backward(torch.ones_like(y))
    assert y.dtype == torch.bfloat16
    assert module.weight.grad.item() == -x.numel()  # bfloat16 would stop counting at 256


def test_frozen_parts_get_no_gradient():
    module = PReLU(3).requires_grad_(False)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    module(x).sum().backward()
    assert module.weight.grad is None
    assert x.grad is not None
    module = PReLU(3)
    module(torch.randn(2, 3, 4, 4)).sum().backward()
    assert module.weight.grad is not None


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_it_is_torchs_where_nothing_is_learned_and_in_what_is_compiled_or_traced():
    module, x = PReLU(3).eval(), torch.randn(2, 3, 4, 4)
    traced = torch.jit.trace(module, x)
    assert "aten::prelu" in str(traced.inlined_graph)
    exported = torch.export.export(module, (x,))
    assert any("prelu" in str(node.target) for node in exported.graph.nodes)
    with torch.no_grad():
        assert torch.equal(module(x), nn.functional.prelu(x, module.weight))
