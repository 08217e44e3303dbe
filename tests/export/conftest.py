"""Models to export, and the faces they are compared on."""

import numpy as np
import pytest
import torch
from networks import spec_of, trained

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.export.gates.parity import crops_of
from visavis.models.card import ModelCard
from visavis.models.torch import save_model
from visavis.synthetic import face
from visavis.vision.images import write
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec((32, 32))


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("int8") / "model"
    network = build_backbone("small", size=(32, 32), dim=32, width=32).eval()
    save_model(path, network, ModelCard("m", "small", 32, SPEC, backbone_args={"width": 32}))
    return path


@pytest.fixture(scope="module")
def faces():
    return crops_of(None, SPEC, count=24)


@pytest.fixture
def folder(tmp_path):
    def make(name="small", size=(32, 32), dim=16, flip="none", channels="RGB", **args):
        network = trained(name, size, dim, **args)
        spec = spec_of(size, flip, channels)
        save_model(tmp_path / "model", network, ModelCard("m", name, dim, spec, backbone_args=args))
        return tmp_path / "model", network, spec

    return make


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, faces with a pair list, and the model's edge folder."""
    root = tmp_path_factory.mktemp("edge")
    torch.manual_seed(0)
    network = build_backbone("small", size=(48, 40), dim=16, width=8).eval()
    spec = PreprocessSpec((48, 40), "sphereface", "BGR", flip="sum")
    save_model(root / "model", network, ModelCard("m", "small", 16, spec, backbone_args={"width": 8}))
    lines = ["2 4"]
    for person in range(8):
        (root / "data" / f"p{person}").mkdir(parents=True)
        for i in range(2):
            image = face(3, person, i)[0][:, 8:104]
            write(root / "data" / f"p{person}" / f"p{person}_{i + 1:04d}.jpg", np.ascontiguousarray(image))
    for fold in range(2):
        people = range(4 * fold, 4 * fold + 4)
        lines += [f"p{p}\t1\t2" for p in people]
        lines += [f"p{p}\t1\tp{4 * fold + (p + 1) % 4}\t2" for p in people]
    (root / "data" / "pairs.txt").write_text("\n".join(lines) + "\n")
    assert main(["export", str(root / "model"), "--crops", "4", "--bundle", str(root / "edge")]) == 0
    return root
