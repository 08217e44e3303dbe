"""int8 in OpenVINO."""

import pytest

from visavis.export.formats.base import Options
from visavis.export.model import open_model
from visavis.export.pipeline import export_model
from visavis.models.card import read_card


def test_int8_openvino_is_small_and_close(small_folder, faces):
    pytest.importorskip("nncf")
    done = export_model(
        open_model(small_folder), "openvino", faces, options=Options(precision="int8", calibration=faces)
    )
    assert done.path.name == "model.int8.xml"
    assert done.parity.distances.mean() < 0.02
    assert read_card(small_folder).exports["model.int8.xml"]["in_float"] == []
