"""Whitening a finished network: the published rule, folded exactly, or refused."""

import numpy as np
import pytest
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.data.augment.augmentation import Augmentation
from visavis.errors import RecipeError
from visavis.models.torch import load_model
from visavis.train.checkpoint import load_checkpoint
from visavis.train.dataset import InMemory
from visavis.train.finetune.whitening import check_can_whiten, whiten, within_class_whitening
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec(size=(32, 32))
CPU = torch.device("cpu")


@pytest.fixture
def few_will_do(monkeypatch):
    monkeypatch.setattr("visavis.train.finetune.whitening.FEWEST_PEOPLE", 2)


def people(classes=6, each=5, size=32):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (classes, 1, size, size, 3))
    noise = rng.integers(-30, 30, (classes, each, size, size, 3))
    images = np.clip(base + noise, 0, 255).astype(np.uint8).reshape(-1, size, size, 3)
    return InMemory(images, np.repeat(np.arange(classes), each))


def test_the_matrix_is_the_inverse_root_of_the_covariance_within_people():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(40), 6)
    x = rng.normal(size=(40, 8))[labels] + rng.normal(size=(240, 8)) @ rng.normal(size=(8, 8)) * 0.3 + 2
    matrix, mean = within_class_whitening(x, labels, ridge=0.5)
    u = x / np.linalg.norm(x, axis=1, keepdims=True) * np.linalg.norm(x, axis=1).mean()
    s = sum(np.cov(u[labels == c].T, bias=True) * 6 for c in range(40)) / 240
    np.testing.assert_allclose(mean, u.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.linalg.inv(matrix @ matrix), s + 0.5 * np.trace(s) / 8 * np.eye(8), atol=1e-10)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)


@pytest.mark.parametrize(("name", "args"), [("small", {}), ("mobilefacenet", {}), ("iresnet18", {}), ("sphere20", {})])
@pytest.mark.usefixtures("few_will_do")
def test_it_is_folded_into_the_last_layer_exactly(name, args):
    torch.manual_seed(0)
    network = build_backbone(name, size=(32, 32), dim=16, **args)
    images = people()
    values = torch.from_numpy(images.array).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    for module in network.modules():  # statistics and shifts as after a training
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            nn.init.normal_(module.bias, 0.3, 0.1)
    network.train()(values)
    network.eval()
    x = values[::9] + 0.1
    before = network(x)
    white = whiten(network, SPEC, images, Augmentation(flip=0), ridge=0.5, seed=0, device=CPU)
    np.testing.assert_array_equal(network(x).detach(), before.detach())  # the network itself is left alone
    matrix, mean = within_class_whitening(network(values).detach().numpy(), images.labels, ridge=0.5)
    expected = (before.detach().numpy() - mean) @ matrix.T
    np.testing.assert_allclose(white(x).detach().numpy(), expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


def test_few_people_leave_the_network_as_it_is(caplog):
    network = build_backbone("small", size=(32, 32), dim=16).eval()
    same = whiten(network, SPEC, people(), Augmentation(), ridge=0.5, seed=0, device=CPU)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(same(x), network(x), rtol=0, atol=0)
    assert "6 people are too few" in caplog.text


@pytest.mark.usefixtures("few_will_do")
def test_a_network_that_ends_otherwise_is_refused():
    network = build_backbone("deepid", size=(55, 47), dim=160)
    with pytest.raises(RecipeError, match="DeepID ends otherwise"):
        whiten(network, PreprocessSpec(size=(55, 47)), people(size=56), Augmentation(), ridge=1.0, seed=0, device=CPU)


def test_a_network_that_cannot_be_whitened_is_refused_before_it_is_trained(blob_folder, tmp_path):
    values = {
        "data": {"source": str(blob_folder)},
        "preprocess": {"size": [55, 47]},
        "backbone": {"name": "deepid", "dim": 16},
        "loop": {"batch_size": 8, "steps": 3, "wccn_ridge": 1.0},
    }
    with pytest.raises(RecipeError, match=r"DeepID ends otherwise: set loop\.wccn_ridge to 0"):
        train(parse_recipe(values), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").read_text()
    check_can_whiten(build_backbone("mobilefacenet", size=(112, 96), dim=128), PreprocessSpec(size=(112, 96)), 128)


@pytest.mark.usefixtures("few_will_do")
def test_a_run_saves_its_whitened_network_and_trains_on_the_plain_one(blob_folder, tmp_path):
    values = {
        "data": {"source": str(blob_folder)},
        "preprocess": {"size": [32, 32]},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "loop": {"batch_size": 8, "steps": 3, "wccn_ridge": 1.0, "ema": 0.9},
    }
    train(parse_recipe(values), tmp_path / "white")
    values["loop"]["wccn_ridge"] = 0.0
    train(parse_recipe(values), tmp_path / "plain")
    white, last, plain = (load_model(tmp_path / run)[0] for run in ("white/best", "white/last", "plain/best"))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(white(x), last(x))
    assert not torch.allclose(white(x), plain(x), atol=1e-2)
    states = [load_checkpoint(tmp_path / run) for run in ("white", "plain")]
    for name, value in states[0]["network"].items():
        torch.testing.assert_close(value, states[1]["network"][name], rtol=0, atol=0)
