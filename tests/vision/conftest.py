"""Images made to cost."""

import importlib.util

import pytest
from paths import BENCHMARKS


@pytest.fixture(scope="module")
def hostile():
    spec = importlib.util.spec_from_file_location("hostile_images", BENCHMARKS / "hostile_images.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
