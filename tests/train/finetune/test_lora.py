"""Low-rank adapters: the paper's product, merged exactly."""

import pytest
import torch
from safetensors.torch import load_file
from small_run import tiny
from torch import nn

from visavis.backbones import build_backbone
from visavis.models.torch import load_model
from visavis.train.finetune.lora import LowRank, adaptable, add_adapters, merged
from visavis.train.loop import train


def test_a_model_trained_with_adapters_needs_no_adapter_code(blob_folder, trained, tmp_path):
    run = train(tiny(blob_folder, init=str(trained), finetune={"lora": {"rank": 2}}), tmp_path / "run")
    before, after = load_file(trained / "weights.safetensors"), load_file(run.model / "weights.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    network, _ = load_model(run.model)
    assert changed == {f"{name}.weight" for name in adaptable(network)}
    assert not any(isinstance(module, LowRank) for module in network.modules())


@pytest.mark.parametrize(("name", "size"), [("mobilefacenet", (32, 32)), ("vit_tiny", (36, 36))])
def test_merged_adapters_embed_as_the_unmerged(name, size):
    torch.manual_seed(0)
    network = build_backbone(name, size=size, dim=32)
    for module in network.modules():  # statistics, without which an untrained network's features are next to nothing
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    network(torch.randn(8, 3, *size))
    network.eval()
    pixels = torch.randn(3, 3, *size)
    plain = network(pixels)
    add_adapters(network, adaptable(network), rank=4, alpha=8.0)
    torch.testing.assert_close(network(pixels), plain, rtol=0, atol=1e-6)  # B starts at zero
    for module in network.modules():
        if isinstance(module, LowRank):
            nn.init.normal_(module.b, std=0.05)
    adapted, whole = network(pixels), merged(network)
    assert (adapted - plain).abs().max() > 1e-3
    torch.testing.assert_close(whole(pixels), adapted, rtol=0, atol=1e-6)
    assert set(whole.state_dict()) == set(build_backbone(name, size=size, dim=32).state_dict())
    torch.testing.assert_close(network(pixels), adapted, rtol=0, atol=0)  # the original is as it was
    assert any(isinstance(module, LowRank) for module in network.modules())


def test_an_adapter_is_the_papers_product():
    layer = nn.Linear(5, 3)
    frozen = layer.weight.detach().clone()
    network = nn.Sequential(layer)
    add_adapters(network, ["0"], rank=2, alpha=6.0)
    (part,) = (m for m in network.modules() if isinstance(m, LowRank))
    nn.init.normal_(part.b)
    torch.testing.assert_close(layer.weight, frozen + (6.0 / 2) * part.b @ part.a)
    network(torch.randn(4, 5)).sum().backward()
    assert part.a.grad is not None
    assert part.b.grad is not None
    assert [n for n, p in network.named_parameters() if p.requires_grad] == [
        "0.bias",
        "0.parametrizations.weight.0.a",
        "0.parametrizations.weight.0.b",
    ]
