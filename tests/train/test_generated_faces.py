"""Generated faces are drawn once: a second run reads them, other code or other people do not."""

import numpy as np
import pytest

from visavis.synthetic import generate
from visavis.train import generated_faces as module
from visavis.train.generated_faces import drawing_digest, generated_faces


@pytest.fixture
def drawn(monkeypatch):
    """How often faces were drawn."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return generate(*args, **kwargs)

    monkeypatch.setattr(module, "generate", counted)
    return calls


def test_a_second_run_reads_what_the_first_has_drawn(tmp_path, drawn):
    first, labels = generated_faces(3, range(5, 8), 2, size=24, folder=tmp_path, workers=0)
    again, same = generated_faces(3, range(5, 8), 2, size=24, folder=tmp_path, workers=0)
    assert len(drawn) == 1
    assert isinstance(again, np.memmap)
    assert np.array_equal(first, again)
    assert np.array_equal(first, generate(3, range(5, 8), 2, size=24, workers=0)[0])
    assert labels.tolist() == same.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"identities": range(6, 9)}, {"images": 1}, {"size": 32}, {"difficulty": 0.5}, {"code": "x"}],
)
def test_other_faces_are_drawn_anew(tmp_path, drawn, monkeypatch, other):
    wanted = {"seed": 3, "identities": range(5, 8), "images": 2, "size": 24, "difficulty": 1.0}
    generated_faces(**wanted, folder=tmp_path, workers=0)
    if "code" in other:
        monkeypatch.setattr(module, "drawing_digest", lambda: "another")
    else:
        wanted |= other
    generated_faces(**wanted, folder=tmp_path, workers=0)
    assert len(drawn) == 2


def test_a_damaged_file_is_drawn_again_and_too_many_are_not_kept(tmp_path, drawn):
    generated_faces(3, range(2), 1, size=24, folder=tmp_path, workers=0)
    (file,) = tmp_path.glob("*.npy")
    file.write_bytes(file.read_bytes()[:90])
    faces, _ = generated_faces(3, range(2), 1, size=24, folder=tmp_path, workers=0)
    assert len(drawn) == 2
    assert faces.shape == (2, 24, 24, 3)
    generated_faces(9, range(2), 1, size=24, folder=tmp_path, budget=100, workers=0)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    assert not list(tmp_path.glob("*.part"))


def test_the_digest_is_of_the_drawing_code():
    assert drawing_digest() == drawing_digest()
    assert len(drawing_digest()) == 64
