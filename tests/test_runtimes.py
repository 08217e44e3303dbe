"""A runtime that is missing is said with the extra that brings it."""

import re
import tomllib

import pytest
from paths import ROOT

from visavis.cli import main
from visavis.runtimes import EXTRAS


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
