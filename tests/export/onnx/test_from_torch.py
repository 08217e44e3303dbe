"""ONNX from a network."""

import logging

import onnx
import pytest
import torch
from networks import images, spec_of, trained
from torch import nn

from visavis.errors import ModelFormatError
from visavis.export.gates.parity import compare, unnamed
from visavis.export.onnx.from_torch import _quiet, make_onnx
from visavis.models.card import ModelCard
from visavis.models.onnx import OnnxEmbedder
from visavis.models.torch import TorchEmbedder
from visavis.vision.preprocessing import PreprocessSpec


class Unexportable(nn.Module):
    dim = 4

    def __init__(self, *, size, dim):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return torch.linalg.svd(self.fc(x.mean((2, 3))).unsqueeze(1).expand(-1, 4, -1)).S


def test_an_operator_onnx_does_not_have_is_named():
    network = Unexportable(size=(32, 32), dim=4).eval()
    with pytest.raises(ModelFormatError, match=r"cannot export backbone my:net with torchscript: .*linalg_svd"):
        make_onnx(network, ModelCard("m", "my:net", 4, PreprocessSpec((32, 32))))


OWN_SIZE = {"deepid": (55, 47), "sphere20": (48, 40)}


DEEP = [
    "mbf_large",
    "iresnet34",
    "iresnet50",
    "iresnet100",
    "iresnet200",
    "vit_small",
    "vit_base",
    "sphere36",
    "sphere64",
]


FAMILIES = ["small", "mobilefacenet", "massface", "mbf", "iresnet18", "vit_tiny", "sphere20", "deepid"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_at_any_batch(name, tmp_path):
    size = OWN_SIZE.get(name, (32, 32))
    network = trained(name, size, 24)
    spec = spec_of(size, "sum", "BGR")
    model = make_onnx(network, ModelCard("m", name, 24, spec))
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    embedder = OnnxEmbedder(path, batch_size=3)
    crops = images(4, size)  # a batch of three, then one of one
    parity = compare(TorchEmbedder(network, spec), embedder, unnamed(crops), tolerance=1e-5)
    assert parity.holds, parity.maximum
    assert (embedder.dim, embedder.spec) == (24, spec)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "mobilefacenet", "iresnet18", "vit_tiny", "deepid"])
def test_the_dynamo_exporter_agrees_too(name, tmp_path):
    size = OWN_SIZE.get(name, (32, 32))
    network, spec = trained(name, size, 24), spec_of(size, "sum")
    path = tmp_path / "m.onnx"
    onnx.save(make_onnx(network, ModelCard("m", name, 24, spec), exporter="dynamo"), path)
    parity = compare(
        TorchEmbedder(network, spec), OnnxEmbedder(path, batch_size=3), unnamed(images(4, size)), tolerance=1e-5
    )
    assert parity.holds, parity.maximum


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_backbones_agree(name, tmp_path):
    size = (48, 40)
    network, spec = trained(name, size, 32), spec_of(size)
    path = tmp_path / "m.onnx"
    onnx.save(make_onnx(network, ModelCard("m", name, 32, spec)), path)
    parity = compare(TorchEmbedder(network, spec), OnnxEmbedder(path), unnamed(images(3, size)), tolerance=1e-5)
    assert parity.holds, parity.maximum


def test_the_exporters_loggers_are_as_loud_afterwards_as_before():
    names = ("torch.onnx", "torch.export", "onnxscript")
    before = [logging.getLogger(name).level for name in names]
    logging.getLogger(names[0]).setLevel(logging.DEBUG)
    try:
        with _quiet(names):
            assert all(logging.getLogger(name).level == logging.ERROR for name in names)
        assert [logging.getLogger(name).level for name in names] == [logging.DEBUG, *before[1:]]
    finally:
        logging.getLogger(names[0]).setLevel(before[0])
