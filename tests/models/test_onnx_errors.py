"""An operator a runtime does not know is named with its layer; a package that is missing, with its extra."""

import onnx
import pytest
from onnx_graphs import graph_with

from visavis.cli import main
from visavis.errors import ModelFormatError
from visavis.models.onnx import OnnxEmbedder, first_line


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("  bad shape\nat node 3"), "bad shape"),
        (ValueError(""), "ValueError"),
        (OSError("x" * 400), "x" * 300),
    ],
)
def test_of_a_runtime_s_error_the_first_line_is_said(error, said):
    assert first_line(error) == said
