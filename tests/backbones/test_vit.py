"""The vision transformer: masked tokens, stochastic depth, attention alike in training and evaluation."""

import pytest
import torch

from visavis.backbones import build_backbone


def test_vit_masks_tokens_only_while_training():
    torch.manual_seed(0)
    network = build_backbone("vit_tiny", size=(36, 36), dim=8, mask_ratio=0.5, drop_path=0.0)
    seen = []
    network.blocks[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[1]))
    (network(torch.randn(3, 3, 36, 36)) * torch.randn(3, 8)).sum().backward()
    network.eval()(torch.randn(2, 3, 36, 36))
    assert seen == [8, 16]
    assert network.mask_token.grad.abs().sum() > 0


def test_stochastic_depth_keeps_the_mean():
    from visavis.backbones.vit import TransformerBlock

    torch.manual_seed(0)
    block = TransformerBlock(16, 2, 4, 0.25)
    dropped = block._drop(torch.ones(20_000, 1, 1))
    assert sorted(dropped.unique().tolist()) == [0.0, pytest.approx(4 / 3)]
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)


def test_vit_attends_alike_in_training_and_evaluation():
    from visavis.backbones.vit import Attention

    torch.manual_seed(0)
    attention = Attention(16, 2, 9)
    x = torch.randn(3, 9, 16)
    torch.testing.assert_close(attention.train()(x), attention.eval()(x))
