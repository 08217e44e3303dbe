"""Freeze plans, adapters, imprinted centers, learning rates by depth: what each does, alone and through the loop."""

import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_run import tiny
from torch import nn

from visavis.backbones import build_backbone
from visavis.errors import RecipeError
from visavis.losses.heads import build_head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.models.torch import TorchEmbedder, load_model
from visavis.train.checkpoint import load_checkpoint
from visavis.train.dataset import InMemory
from visavis.train.finetune.finetuning import FineTuning, frozen_names, imprint
from visavis.train.layers import children, layers
from visavis.train.loop import train
from visavis.train.objective import Objective
from visavis.train.optimizers import build_optimizer
from visavis.train.recipe import FinetuneRecipe, LoraRecipe, OptimizerRecipe
from visavis.train.run_folder import resume_recipe
from visavis.train.run_logger import Observer
from visavis.vision.preprocessing import PreprocessSpec


def tensors_in(value, path=""):
    if isinstance(value, torch.Tensor):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {k: v for key, part in items for k, v in tensors_in(part, f"{path}/{key}").items()}


class StopAfter(Observer):
    def __init__(self, step):
        self.step = step

    def stepped(self, step):
        if step == self.step:
            signal.raise_signal(signal.SIGINT)


SECTIONS = {
    "freeze": {"finetune": {"freeze": ["all but last 1 children"], "imprint": True}},
    "lora": {"finetune": {"lora": {"rank": 2}, "imprint": True}, "loop": {"ema": 0.9}},
    "layer decay": {"optimizer": {"layer_decay": 0.7}},
    "norms": {"finetune": {"freeze_norms": "all"}},
    "blend": {"finetune": {"wise_ft_alpha": 0.5}, "loop": {"ema": 0.9}},
    "class means": {"head": {"center_loss": 0.01, "norm_weight_power": 1.0, "label_smoothing": 0.1}},
}


@pytest.mark.parametrize("kind", SECTIONS)
def test_resuming_a_fine_tuning_ends_in_the_same_bits(blob_folder, trained, tmp_path, kind):
    recipe = tiny(blob_folder, steps=5, init=str(trained), **SECTIONS[kind])
    train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "halves", observer=StopAfter(2))
    assert 2 <= load_checkpoint(tmp_path / "halves")["step"] < 5
    train(resume_recipe(tmp_path / "halves"), tmp_path / "halves", resume=True)
    a, b = (tensors_in(load_checkpoint(tmp_path / name)) for name in ("whole", "halves"))
    assert a.keys() == b.keys()
    assert len(a) > 30
    assert all(torch.equal(a[key], b[key]) for key in a)
    models = [(tmp_path / name / "best" / "weights.safetensors").read_bytes() for name in ("whole", "halves")]
    assert models[0] == models[1]


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_a_blend_lies_between_the_start_and_what_was_learned(blob_folder, trained, tmp_path, kind):
    runs = {}
    for blend in (1.0, 0.25):
        plan = {"wise_ft_alpha": blend, "lora": {"rank": 2 if kind == "lora" else 0}}
        recipe = tiny(blob_folder, init=str(trained), finetune=plan)
        runs[blend] = load_file(train(recipe, tmp_path / str(blend)).model / "weights.safetensors")
    start, moved = load_file(trained / "weights.safetensors"), 0.0
    for name, value in start.items():
        if value.is_floating_point():
            wanted = value.double() + 0.25 * (runs[1.0][name].double() - value)
            torch.testing.assert_close(runs[0.25][name].double(), wanted, rtol=0, atol=1e-6)
            moved = max(moved, (runs[0.25][name] - value).abs().max().item())
    assert moved > 1e-4
    states = [load_checkpoint(tmp_path / str(blend))["network"] for blend in (1.0, 0.25)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])  # what learns is not blended


def test_what_stands_beside_a_head_can_be_set_in_a_recipe(blob_folder):
    wanted = {
        "center_loss": 0.01,
        "norm_weight_power": 1.0,
        "label_smoothing": 0.1,
        "sub_centers": 2,
        "sample_rate": 0.5,
    }
    head = Objective(tiny(blob_folder, head=wanted), num_classes=8, dim=16).head
    assert head.centers.weight == 0.01
    assert {key: getattr(head, key) for key in wanted if key != "center_loss"} == {
        key: value for key, value in wanted.items() if key != "center_loss"
    }


def test_frozen_layers_and_their_statistics_stay_and_the_rest_learns(blob_folder, trained, tmp_path):
    recipe = tiny(blob_folder, init=str(trained), finetune={"freeze": ["all but last 1 children"]})
    run = train(recipe, tmp_path / "run")
    before, after = load_file(trained / "weights.safetensors"), load_file(run.model / "weights.safetensors")
    network, _ = load_model(trained)
    last = {name.split(".")[0] for name in children(network)[-1]}
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.split(".")[0] not in last}


def test_with_adapters_only_they_learn_and_frozen_layers_get_none():
    network = build_backbone("mobilefacenet", size=(32, 32), dim=8)
    FineTuning(network, FinetuneRecipe(freeze=["blocks"], lora=LoraRecipe(rank=2)))
    learning = [name for name, p in network.named_parameters() if p.requires_grad]
    assert learning
    assert all(".parametrizations.weight.0." in name for name in learning)
    assert not any(name.startswith("blocks") for name in learning)


def test_adapters_may_let_norms_and_biases_learn():
    network = build_backbone("mobilefacenet", size=(32, 32), dim=8)
    tuning = FineTuning(network, FinetuneRecipe(lora=LoraRecipe(rank=2, targets=["linear1"], train_norms=True)))
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert "conv1.bn.weight" in learning
    assert "conv1.conv.weight" not in learning
    assert {n for n in learning if "parametrizations" in n} == {
        f"linear1.conv.parametrizations.weight.0.{x}" for x in "ab"
    }
    assert not tuning.norms


def test_norms_keep_their_statistics_only_where_asked():
    def statistics(**plan):
        torch.manual_seed(0)
        network = build_backbone("mobilefacenet", size=(32, 32), dim=8)
        tuning = FineTuning(network, FinetuneRecipe(**plan))
        tuning.train()
        network(torch.randn(4, 3, 32, 32))
        return {n for n, b in network.named_buffers() if n.endswith("running_mean") and bool(b.any())}

    every = statistics()
    assert statistics(freeze=["conv1", "blocks"]) == {n for n in every if not n.startswith(("conv1", "blocks"))}
    assert statistics(freeze=["conv1", "blocks"], freeze_norms="none") == every
    assert statistics(freeze_norms="all") == set()


def test_a_parameter_the_network_itself_keeps_fixed_does_not_freeze_its_norm():
    network = build_backbone("iresnet18", size=(16, 16), dim=8)
    assert not FineTuning(network, FinetuneRecipe()).norms


def test_learning_rates_fall_towards_the_input_and_leave_the_head_alone():
    network = build_backbone("vit_tiny", size=(36, 36), dim=8)
    head = nn.ModuleDict({"head": nn.Linear(8, 4), "other": nn.Linear(2, 2)})
    recipe = OptimizerRecipe(layer_decay=0.5, head_lr_scale=3.0)
    optimizer = build_optimizer(network, [head], recipe, lr=1.0)
    rates = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    deep = layers(network)
    for depth, layer in enumerate(deep):
        expected = 0.5 ** (len(deep) - 1 - depth)
        trained = [network.get_parameter(name) for name in layer if network.get_parameter(name).requires_grad]
        assert {rates[id(p)] for p in trained} <= {expected}
        assert trained or layer == ["mask_token"]
    assert {rates[id(p)] for p in head.parameters()} == {3.0}


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"freeze": ["blcks"]}, "did you mean 'blocks'"),
        ({"freeze": ["all but last 9 children"]}, "the network has 6 children"),
        ({"freeze": ["all but last 6 children"]}, "so nothing would be frozen"),
        ({"lora": LoraRecipe(rank=2, targets=["conv1"])}, "conv1"),
        ({"lora": LoraRecipe(rank=2, alpha=0.0)}, "positive alpha"),
        ({"freeze": ["all"], "lora": LoraRecipe(rank=2)}, "no linear or 1×1"),
    ],
)
def test_an_impossible_plan_is_refused(plan, words):
    with pytest.raises(RecipeError, match=words):
        FineTuning(build_backbone("mobilefacenet", size=(32, 32), dim=8), FinetuneRecipe(**plan))


def test_freeze_plans_name_what_they_say():
    network = build_backbone("mobilefacenet", size=(32, 32), dim=8)
    every = {name for name, _ in network.named_parameters()}
    assert frozen_names(network, ["all"]) == every
    assert every - frozen_names(network, ["all but last 2 children"]) == {
        n for n in every if n.startswith(("linear7", "linear1"))
    }
    assert every - frozen_names(network, ["all but last 1 layers"]) == set(layers(network)[-1])
    assert frozen_names(network, ["blocks.1", "conv1"]) == {n for n in every if n.startswith(("blocks.1.", "conv1."))}


@pytest.mark.parametrize("sub_centers", [1, 3])
def test_imprinted_centers_are_the_class_means_at_their_own_length(sub_centers):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = np.array([2, 0, 1, 0, 2, 2, 1, 0])
    images = InMemory(rng.integers(0, 256, (8, 32, 32, 3), np.uint8), labels)
    spec = PreprocessSpec(size=(32, 32), flip="concat")
    network = build_backbone("mobilefacenet", size=(32, 32), dim=8)
    head = MarginSoftmax(build_head("arcface"), num_classes=3, dim=8, sub_centers=sub_centers)
    norms = head.weight.detach().norm(dim=1).clone()
    imprint(head, network, spec, images, device=torch.device("cpu"))
    single = PreprocessSpec(size=(32, 32))
    vectors = torch.from_numpy(TorchEmbedder(network, single).embed(images.array))
    for c in range(3):
        mean = vectors[torch.from_numpy(labels) == c].mean(0)
        torch.testing.assert_close(
            head.weight.detach()[c * sub_centers], mean / mean.norm() * norms[c * sub_centers], rtol=0, atol=1e-6
        )
    torch.testing.assert_close(head.weight.detach().norm(dim=1), norms)
    if sub_centers > 1:
        assert (head.weight[0] - head.weight[1]).norm() > 0.1
    assert network.training is False  # the loop puts it back into training mode


def test_imprinting_starts_the_run_at_a_higher_accuracy(blob_folder, trained, tmp_path):
    from visavis.train.run_logger import read_metrics

    def first_cosine(name, *, imprint):
        recipe = tiny(blob_folder, steps=1, init=str(trained), finetune={"imprint": imprint}, loop={"log_every": 1})
        recipe.seed = 1  # with the model's own seed the random centers are those it was trained with
        train(recipe, tmp_path / name)
        return read_metrics(tmp_path / name)[0]["target_cosine"]

    assert first_cosine("with", imprint=True) > first_cosine("without", imprint=False) + 0.3


def test_imprinting_needs_class_centers(blob_folder, trained, tmp_path):
    with pytest.raises(RecipeError, match=r"head\.name none"):
        tiny(
            blob_folder,
            init=str(trained),
            head={"name": "none", "args": {}},
            triplet={"weight": 1.0},
            finetune={"imprint": True},
            data={"sampler": "pxk", "images_per_class": 2},
        )
