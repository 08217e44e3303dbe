"""FLOPs, activations and memory against sums done by hand."""

import pytest
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.train.footprint import count_flops, estimate_memory, measure_activations
from visavis.train.recipe import parse_recipe
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec(size=(32, 32))


def recipe(**sections):
    data = {"source": "nowhere", "expected_identities": 1000, "expected_images": 50_000}
    return parse_recipe({"data": data, "loop": {"batch_size": 80, "device_batch": 8, "epochs": 2.0}} | sections)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.fc = nn.Linear(4 * 32 * 32, 6)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


def test_flops_count_a_multiplication_and_an_addition_as_two():
    assert count_flops(Toy(), SPEC) == 2 * (32 * 32 * 4 * 3 * 9) + 2 * (4 * 32 * 32 * 6)


def test_flops_of_a_published_network_are_the_published_ones():
    network = build_backbone("mobilefacenet", size=(112, 112), dim=128)
    assert count_flops(network, PreprocessSpec()) == pytest.approx(2 * 221e6, rel=0.05)  # arXiv 1804.07573: 221 M MAdds
    assert network.training


def test_attention_is_counted():
    network = build_backbone("vit_tiny", size=(36, 36), dim=8)  # 16 tokens of 256, 12 blocks
    tokens, width = 16, 256
    block = 2 * tokens * width * (3 * width + width + 8 * width) + 2 * 2 * tokens * tokens * width
    ends = 2 * tokens * 243 * width + 2 * (tokens * width * width + width * 8)
    assert count_flops(network, PreprocessSpec(size=(36, 36))) == 12 * block + ends


def test_activations_are_what_the_backward_pass_needs():
    # Kept per image: the input (for the kernel's gradient) and the ReLU's output (for its own and the matrix's).
    measured = measure_activations(Toy(), SPEC, torch.device("cpu"), "fp32")
    assert measured == 4 * (3 * 32 * 32 + 4 * 32 * 32)


def test_recomputing_blocks_keeps_fewer_activations():
    spec = PreprocessSpec(size=(36, 36))
    kept = [
        measure_activations(
            build_backbone("vit_tiny", size=(36, 36), dim=8, checkpointing=c).train(), spec, torch.device("cpu"), "fp32"
        )
        for c in (False, True)
    ]
    assert kept[1] < 0.5 * kept[0]


def test_memory_adds_up():
    network = Toy()
    p = sum(x.numel() for x in network.parameters())
    memory = estimate_memory(
        recipe(loop={"batch_size": 80, "device_batch": 8, "epochs": 2.0, "ema": 0.9}, optimizer={"name": "adamw"}),
        network,
        centers=1600,
        activations=100,
        devices=2,
    )
    assert memory["weights"] == memory["gradients"] == memory["moving average"] == 4 * p
    assert memory["optimizer state"] == 8 * p
    assert memory["activations"] == 100 * 8
    assert memory["class centers, their gradient and state"] == 4 * 800 * (1 + 1 + 2)
    sampled = estimate_memory(recipe(head={"sample_rate": 0.1}), network, centers=1600, activations=1, devices=1)
    assert sampled["class centers, their gradient and state"] == 4 * 1600 * 2.1
