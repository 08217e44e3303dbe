"""Generated images: the same everywhere, every size, not told apart by raw pixels."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from visavis import synthetic
from visavis.errors import DataError
from visavis.evaluate.pixel_baseline import PixelEmbedder
from visavis.types import Pairs
from visavis.vision.images import resize


def _digest(image: np.ndarray, landmarks: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes() + landmarks.round(6).tobytes()).hexdigest()


def test_a_picture_is_a_function_of_its_numbers_in_every_process() -> None:
    code = (
        "import hashlib; from visavis.synthetic import face; a, b = face(5, 17, 3); "
        "print(hashlib.sha256(a.tobytes() + b.round(6).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    synthetic.face(9, 1, 1)  # what was drawn before must not matter
    assert _digest(*synthetic.face(5, 17, 3)) == other
    different = {_digest(*synthetic.face(*numbers)) for numbers in ((5, 17, 3), (5, 17, 4), (5, 18, 3), (6, 17, 3))}
    assert len(different) == 4


def _pixel_accuracy(difficulty: float, *, people: int = 100, pairs: int = 1000) -> float:
    """k-fold accuracy of the cosine of raw aligned pixels on people numbered from a million."""
    images = 4
    crops, _, _ = synthetic.generate(0, range(10**6, 10**6 + people), images, size=48, difficulty=difficulty, workers=0)
    rows, protocol = PixelEmbedder().embed(crops), synthetic.pairs(people, images, pairs, 10, 0)
    return k_fold(rows, protocol)


def k_fold(rows: np.ndarray, protocol: Pairs) -> float:
    score = (rows[protocol.reference] * rows[protocol.probe]).sum(1)
    right = []
    for fold in range(10):
        train = protocol.fold != fold
        cuts = np.sort(score[train])
        best = max(cuts, key=lambda cut: np.mean((score[train] >= cut) == protocol.genuine[train]))
        right.append(np.mean((score[~train] >= best) == protocol.genuine[~train]))
    return float(np.mean(right))


def test_raw_pixels_do_not_verify_people_at_the_default_difficulty() -> None:
    assert 0.5 < _pixel_accuracy(1.0) <= 0.65


def test_passport_photos_are_easy_even_for_raw_pixels() -> None:
    assert _pixel_accuracy(0.0, people=40, pairs=400) > 0.75


@pytest.mark.parametrize(
    ("numbers", "options", "said"),
    [
        ((-1, 0, 0), {}, "count from 0"),
        ((0, 0, 0), {"size": 8}, r"\[16, 1024\]"),
        ((0, 0, 0), {"difficulty": 9.0}, r"\[0, 3\]"),
    ],
)
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int], options: dict[str, float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        synthetic.face(*numbers, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [448, 1024])
def test_every_promised_size_is_drawn(size: int) -> None:
    """OpenCV counts the sides of maps in 16 bits: from 448 pixels on some rays' maps were longer, and it failed."""
    drawn, points = synthetic.face(0, 0, 0, size=size, difficulty=0)
    same, wanted = synthetic.face(0, 0, 0, size=112, difficulty=0)
    assert drawn.shape == (size, size, 3)
    np.testing.assert_allclose((points + 0.5) * (112 / size) - 0.5, wanted, atol=0.05)
    a, b = (resize(image, (16, 16)).astype(float).ravel() for image in (drawn, same))
    assert np.corrcoef(a, b)[0, 1] > 0.98
