"""What a dry run computes, against sums done by hand, and that it runs where the data is absent."""

import pytest
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.errors import RecipeError
from visavis.train.cost import count_flops, dry_run, estimate_memory, find_extent, measure_activations
from visavis.train.recipe import parse_recipe
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec(size=(32, 32))


def recipe(**sections):
    values = {
        "name": "costly",
        "data": {"source": "nowhere/at/all", "workers": 0, "expected_identities": 1000, "expected_pictures": 50_000},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "loop": {"batch_size": 80, "device_batch": 8, "epochs": 2.0, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_recipe(values)


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
        recipe(loop={"ema": 0.9}, optimizer={"name": "adamw"}), network, centers=1600, activations=100, devices=2
    )
    assert memory["weights"] == memory["gradients"] == memory["moving average"] == 4 * p
    assert memory["optimizer state"] == 8 * p
    assert memory["activations"] == 100 * 8
    assert memory["class centers, their gradient and state"] == 4 * 800 * (1 + 1 + 2)
    sampled = estimate_memory(recipe(head={"sample_rate": 0.1}), network, centers=1600, activations=1, devices=1)
    assert sampled["class centers, their gradient and state"] == 4 * 1600 * 2.1


def test_a_dry_run_without_data_measures_noise():
    seen = []
    cost = dry_run(recipe(), devices=2, steps=3, advance=lambda done, total: seen.append((done, total)))
    assert (cost.steps_per_epoch, cost.steps, cost.batch) == (50_000 // 16 // 5, 2 * (50_000 // 16 // 5), 80)
    assert cost.centers == 16_000
    assert cost.speed.images_per_second > 0
    assert (cost.speed.steps, cost.speed.centers, seen[-1]) == (3, 1000, (3, 3))
    text = cost.to_table().to_text()
    assert "nowhere/at/all is not there" in text
    assert "1,000 identities" in text


def test_a_dry_run_with_data_counts_it_and_suits_triplets(blob_folder):
    wanted = recipe(
        data={"source": str(blob_folder), "sampler": "pxk", "images_per_class": 2},
        head={"name": "none"},
        triplet={"weight": 1.0},
        loop={"batch_size": 16},
    )
    extent = find_extent(wanted)
    assert (extent.identities, extent.pictures) == (8, 48)
    cost = dry_run(wanted, steps=2)
    assert (cost.centers, cost.steps_per_epoch) == (0, 1)


def test_how_much_data_must_be_known(tmp_path, capsys):
    with pytest.raises(RecipeError, match=r"--data\.expected_identities"):
        find_extent(recipe(data={"expected_identities": 0}))
    path = tmp_path / "r.yaml"
    path.write_text(recipe().to_yaml())
    assert main(["train", str(path), "--dry-run", "--data.expected_pictures", "0"]) == 2
    assert "nowhere/at/all is not there" in capsys.readouterr().err


def test_the_command_prints_the_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("visavis.train.cost.STEPS", 2)
    path = tmp_path / "r.yaml"
    path.write_text(recipe().to_yaml())
    assert main(["train", str(path), "--dry-run", "--devices", "5"]) == 0
    out = capsys.readouterr().out
    for words in ("parameters of the network", "FLOPs per image", "memory per device, in all", "5 devices", "images/s"):
        assert words in out
    assert not (tmp_path / "runs").exists()
