"""What is wrong with a recipe or a network is found before an image is opened, and leaves no run folder."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from visavis.backbones import build_backbone
from visavis.errors import RecipeError
from visavis.train.build import check_network
from visavis.train.loop import train
from visavis.train.recipe import parse_recipe
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec(size=(8, 8))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"schedule": {"name": "cosin"}}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"schedule": {"args": {"finl": 0.1}}}, "unknown argument of schedule 'cosine' 'finl'; did you mean 'final'"),
        ({"head": {"name": "arcfac"}}, "unknown head 'arcfac'; did you mean 'arcface'"),
        ({"head": {"args": {"margn": 0.1}}}, "did you mean 'margin'"),
        ({"optimizer": {"name": "sdg"}}, "unknown optimizer 'sdg'; did you mean 'sgd'"),
        (
            {"triplet": {"weight": 1.0, "miner": "batch_hart"}},
            "unknown miner 'batch_hart'; did you mean",
        ),
        ({"loop": {"batch_size": 9, "device_batch": 4, "steps": 1}}, "type --loop.device_batch 3"),
    ],
)
def test_a_wrong_name_is_found_before_anything_is_opened_or_made(tmp_path, section, said):
    values = {"data": {"source": str(tmp_path / "not there")}, "loop": {"steps": 1, "device": "cpu"}, **section}
    with pytest.raises(RecipeError) as caught:
        train(parse_recipe(values), tmp_path / "run")
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


class Gives(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x):
        return self.what(torch.zeros(len(x), 4))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            lambda x: (x, x),
            r"must map \(N, 3, 8, 8\) to a tensor \(N, 4\); it gives a tuple: return the embeddings alone",
        ),
        (lambda x: x[:, :3], r"it gives \(2, 3\) for N = 2"),
        (lambda x: x[:, :, None, None], r"it gives \(2, 4, 1, 1\)"),
        (lambda x: x / 0, "it gives NaN or infinity"),
    ],
)
def test_a_network_is_tried_first(what, said):
    with pytest.raises(RecipeError, match=said):
        check_network(Gives(what), SPEC, 4, name="mine:Net")


def test_trying_a_network_teaches_it_nothing():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 64, 4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_network(network, SPEC, 4, name="mine:Net")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_an_own_backbone_that_returns_a_tuple_is_told_in_one_line(blob_folder, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, size, dim):\n        super().__init__()\n        self.fc = torch.nn.Linear(3, dim)\n"
        "    def forward(self, x):\n        return self.fc(x.mean((2, 3))), None\n"
    )
    words = ["train", "quickstart", "--backbone.name=mine:Net", "--loop.device=cpu", f"--out={tmp_path / 'run'}"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "visavis", *words],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("visavis: backbone mine:Net must map (N, 3, 56, 56)")
    assert "Traceback" not in done.stderr


def test_a_machine_without_a_home_trains(blob_folder, tmp_path):
    """No $HOME and no entry in passwd, as in many containers."""
    code = (
        "import os, pwd, sys\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "from visavis.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "r.yaml").write_text(
        f"data: {{source: {blob_folder}}}\npreprocess: {{size: [32, 32]}}\nbackbone: {{name: small, dim: 8}}\n"
        "loop: {batch_size: 8, steps: 2, device: cpu}\n"
    )
    gone = ("HOME", "VISAVIS_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR")
    environment = {key: value for key, value in os.environ.items() if key not in gone} | {"TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", code, "train", str(tmp_path / "r.yaml"), f"--out={tmp_path / 'run'}"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("there is no home folder") == 1
    assert not list(tmp_path.glob("visavis-*"))


def test_a_deep_fresh_network_is_let_pass_and_nothing_of_it_changes():
    """iResNet-100 overflows by its fresh running statistics, not by those of the batch it trains with."""
    network = build_backbone("iresnet100", size=(112, 112), dim=512).eval()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    check_network(network, PreprocessSpec(), 512, name="iresnet100")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert not network.training
    torch.nn.init.constant_(network.features.weight, torch.nan)
    with pytest.raises(RecipeError, match="gives NaN or infinity"):
        check_network(network, PreprocessSpec(), 512, name="iresnet100")
