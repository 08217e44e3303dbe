"""An operator a runtime does not know is named with its layer; a package that is missing, with its extra."""

import logging
import re
import tomllib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from paths import ROOT

from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.models.onnx import OnnxEmbedder
from visavis.runtimes import EXTRAS


def graph_with(operator, domain=""):
    """Pixels, a node nobody knows, features."""
    weight = numpy_helper.from_array(np.ones((3 * 8 * 8, 4), np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"], name="flat"),
            helper.make_node(operator, ["flat"], ["odd"], name="block1/act", domain=domain),
            helper.make_node("MatMul", ["odd", "w"], ["embedding"], name="fc"),
        ],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(
    ("operator", "domain", "said"), [("Fancy", "", "Fancy"), ("Fancy", "org.odd", "org.odd:Fancy")]
)
def test_onnx_runtime_s_unknown_operator_is_named_with_its_layer(operator, domain, said, tmp_path, capsys):
    path = tmp_path / "odd.onnx"
    onnx.save(graph_with(operator, domain), path)
    with pytest.raises(ModelFormatError, match=f"does not know operator {said} of layer block1/act"):
        OnnxEmbedder(path)
    assert main(["export", str(path)]) == 2
    assert f"operator {said} of layer block1/act" in capsys.readouterr().err


@pytest.mark.parametrize(("operator", "domain"), [("Det", ""), ("Fancy", "com.microsoft")])
def test_openvino_s_unknown_operator_is_named_with_its_layer(operator, domain):
    pytest.importorskip("openvino")
    from visavis.export.onnx.to_openvino import convert

    root = logging.getLogger()
    before = root.level, list(root.handlers)
    said = f"{domain}:{operator}" if domain else operator
    with pytest.raises(ModelFormatError, match=f"OpenVINO cannot convert the graph: operator {said} of layer block1/"):
        convert(graph_with(operator, domain))
    assert (root.level, list(root.handlers)) == before  # OpenVINO's converter would set it for the whole process


@pytest.mark.parametrize("name", ["torch", "onnx", "onnxruntime"])
def test_a_missing_package_is_said_with_its_extra(name, monkeypatch, capsys):
    def missing(args):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr("visavis.cli.export.run", missing)
    assert main(["export", "model"]) == 2
    wanted = f"'visavis[{EXTRAS[name]}]'" if EXTRAS[name] else "visavis"
    assert f"export needs {name}, which is not installed; pip install {wanted}" in capsys.readouterr().err


def test_extras_are_the_project_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = {"": project["dependencies"], **project["optional-dependencies"]}
    packages = {
        "faiss": "faiss-cpu",
        "sklearn": "scikit-learn",
        "huggingface_hub": "huggingface-hub",
        "yaml": "pyyaml",
        "python_multipart": "python-multipart",
        "prometheus_client": "prometheus-client",
        "pi_heif": "pi-heif",
    }
    for module, extra in EXTRAS.items():
        names = {re.match(r"[\w-]+", requirement)[0] for requirement in listed[extra]}
        assert packages.get(module, module) in names
