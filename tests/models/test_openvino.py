import re
import shutil

import numpy as np
import pytest
import torch

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.export.gates.parity import crops_of
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.card import ModelCard
from visavis.models.torch import save_model
from visavis.vision.images import write
from visavis.vision.preprocessing import PreprocessSpec

pytest.importorskip("openvino")
from visavis.models.openvino import OpenVinoEmbedder

SPEC = PreprocessSpec((32, 32))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("openvino") / "model"
    network = build_backbone("small", size=(32, 32), dim=8, width=8).eval()
    save_model(path, network, ModelCard("m", "small", 8, SPEC, backbone_args={"width": 8}))
    return export_model(open_model(path), "openvino", crops_of(None, SPEC, count=2)).path


@pytest.fixture
def copy(exported, tmp_path):
    for end in (".xml", ".bin"):
        shutil.copy(exported.with_suffix(end), tmp_path / f"copy{end}")
    return tmp_path / "copy.xml"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_graph_is_refused(copy, share):
    data = copy.read_bytes()
    copy.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFormatError, match=r"copy\.xml: OpenVINO cannot read it") as raised:
        OpenVinoEmbedder(copy)
    assert ".cpp" not in str(raised.value), "a place in OpenVINO's source tells a user nothing"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_weights_are_refused(copy, share):
    weights = copy.with_suffix(".bin")
    data = weights.read_bytes()
    weights.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelFormatError, match=r"copy\.xml: OpenVINO cannot"):
        OpenVinoEmbedder(copy).embed(np.zeros((1, 32, 32, 3), np.uint8))


def test_missing_weights_are_refused(copy):
    copy.with_suffix(".bin").unlink()
    with pytest.raises(ModelFormatError, match=r"copy\.xml: OpenVINO cannot"):
        OpenVinoEmbedder(copy).embed(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_graph_that_contradicts_its_card_is_refused(copy):
    text = copy.read_text(encoding="utf-8")
    changed, count = re.subn(r"(embedding_dim\D{1,20})8\b", r"\g<1>9", text)
    assert count == 1, "the card is there once"
    copy.write_text(changed, encoding="utf-8")
    with pytest.raises(ModelFormatError, match="the card says embeddings of 9, the graph gives 8"):
        OpenVinoEmbedder(copy)


def test_the_command_line_says_it_in_one_line(copy, tmp_path, capsys):
    copy.write_bytes(copy.read_bytes()[:3000])
    write(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    assert main(["verify", str(copy), str(tmp_path / "a.png"), str(tmp_path / "a.png")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "copy.xml: OpenVINO cannot read it" in said[0]
