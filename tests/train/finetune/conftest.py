"""A model to start from."""

import pytest
from small_run import tiny

from visavis.train.loop import train


@pytest.fixture(scope="module")
def trained(blob_folder, tmp_path_factory):
    """A model to start from."""
    return train(tiny(blob_folder, steps=8), tmp_path_factory.mktemp("trained") / "run").model
