"""A damaged image gives way to the next good one of its identity."""

import shutil

import numpy as np
import pytest
import torch

from visavis.data.sources import open_source
from visavis.data.sources.tolerant import TolerantSource


@pytest.fixture
def faces(blob_folder, tmp_path):
    shutil.copytree(blob_folder, tmp_path / "faces")
    return tmp_path / "faces"


def damage(folder, name):
    path = folder / "images" / name.rsplit("_", 1)[0] / name
    path.write_bytes(path.read_bytes()[:200])


def test_the_next_good_picture_of_the_same_identity_takes_the_place(faces):
    base = open_source(faces)
    own = [i for i, name in enumerate(base.names) if "person_3" in name]
    damage(faces, "person_3_0006.jpg")
    damage(faces, "person_3_0001.jpg")
    source = TolerantSource(base, 2)
    assert np.array_equal(source.image(own[5]), base.image(own[1]))  # past the damaged first one
    assert np.array_equal(source.image(own[0]), base.image(own[1]))
    assert np.array_equal(source.image(own[2]), base.image(own[2]))
    assert set(source.damaged) == {base.names[own[5]], base.names[own[0]]}
    assert torch.equal(torch.tensor(source.labels), torch.tensor(base.labels))
