"""A folder with every fault there is."""

import pytest
from face_like import altered, face_like, put

from visavis.vision import images


@pytest.fixture
def messy(tmp_path):
    folder = tmp_path / "set"
    for k in range(30):
        put(folder, f"P{k // 3}", f"{k}.jpg", images.encode(face_like(k), ".jpg"))
    put(folder, "P0", "again.jpg", (folder / "P0" / "0.jpg").read_bytes())
    put(folder, "P1", "stolen.jpg", (folder / "P5" / "15.jpg").read_bytes())
    put(folder, "P2", "inside.jpg", images.encode(altered(face_like(6), "cropped"), ".jpg"))
    put(folder, "P3", "across.jpg", images.encode(altered(face_like(21), "brighter"), ".jpg"))
    put(folder, "P4", "cut.jpg", (folder / "P4" / "12.jpg").read_bytes()[:900])
    put(folder, "P4", "notes.txt", b"hello")
    put(folder, "Solo", "1.jpg", images.encode(face_like(99), ".jpg"))
    return folder
