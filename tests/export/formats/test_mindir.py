import importlib.util

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from visavis.backbones import build_backbone
from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.export.formats.base import Options
from visavis.export.formats.mindir import commands
from visavis.export.gates.parity import unnamed
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.card import ModelCard
from visavis.models.torch import save_model
from visavis.vision.preprocessing import PreprocessSpec

HAS_MINDSPORE = importlib.util.find_spec("mindspore") is not None


SIZES = {"deepid": (55, 47), "sphere20": (48, 40)}


def folder_of(tmp_path, name, **spec):
    torch.manual_seed(0)
    size = SIZES.get(name, (32, 32))
    network = build_backbone(name, size=size, dim=16).eval()
    card = ModelCard("m", name, 16, PreprocessSpec(size, **spec))
    save_model(tmp_path / "model", network, card)
    return tmp_path / "model"


def crops(size, count=3):
    return unnamed(np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8))


@pytest.mark.skipif(HAS_MINDSPORE, reason="MindSpore is installed")
def test_without_mindspore_the_extra_is_named(tmp_path, capsys):
    path = folder_of(tmp_path, "small")
    assert main(["export", str(path), "--format", "mindir"]) == 2
    assert "pip install 'visavis[mindspore]'" in capsys.readouterr().err
    assert not list(path.glob("*.mindir"))


@pytest.mark.skipif(not HAS_MINDSPORE, reason="needs MindSpore")
@pytest.mark.parametrize(
    "name", ["small", "mobilefacenet", "massface", "mbf", "iresnet18", "vit_tiny", "sphere20", "deepid"]
)
def test_mindir_agrees_in_mindspore(name, tmp_path):
    path = folder_of(tmp_path, name, flip="sum", channels="BGR")
    model = open_model(path)
    done = export_model(model, "mindir", crops(model.card.preprocess.size), options=Options(batch=2))
    assert done.parity.maximum < 1e-8  # 1 − cos; features agree to 1e-4
    assert done.record["batch"] == 2
    assert any("converter_lite --fmk=MINDIR --modelFile=model.mindir" in line for line in done.notes)


@pytest.mark.skipif(not HAS_MINDSPORE, reason="needs MindSpore")
def test_an_operator_without_a_cell_is_named_with_its_layer():
    from visavis.export.formats.mindir import build_cell

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"], name="strange")], "g", values[:1], values[1:])
    with pytest.raises(ModelFormatError, match="Erf strange is not supported"):
        build_cell(helper.make_model(graph))


def test_commands_name_the_file_just_written():
    card = ModelCard("m", "small", 16, PreprocessSpec((112, 96)))
    said = "\n".join(commands("face.mindir", (4, 112, 96, 3), card))
    assert "converter_lite --fmk=MINDIR --modelFile=face.mindir --outputFile=face --inputShape=x:4,112,96,3" in said
    assert (
        'atc --framework=5 --model=face.onnx --output=face --input_format=NHWC --input_shape="image:4,112,96,3"' in said
    )
    assert "--input_format=NCHW" in "\n".join(commands("face.mindir", (1, 3, 112, 96), card))
