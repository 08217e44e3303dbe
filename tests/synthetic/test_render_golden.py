"""Generated faces are those that published figures were measured on: a change of how they are drawn is no accident.

Where it is meant, `fixtures/faces.npz` is written anew, and what was measured on generated faces is measured again.
"""

from pathlib import Path

import numpy as np

from visavis import synthetic

NUMBERS = [(seed, person, image) for seed in (0, 7) for person in (3, 11, 40) for image in (0, 1, 5)]
KEPT = Path(__file__).parent / "fixtures" / "faces.npz"


def thumbnail(face: np.ndarray) -> np.ndarray:
    """Means of 4 × 4 pixels: processors differ in the last bits of a few pixels."""
    height, width = face.shape[:2]
    return face.reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3)).round().astype(np.uint8)


def test_faces_are_drawn_as_they_were():
    with np.load(KEPT, allow_pickle=False) as kept:
        for numbers, expected, points in zip(NUMBERS, kept["thumbnails"], kept["landmarks"], strict=True):
            face, landmarks = synthetic.face(*numbers)
            assert np.abs(thumbnail(face).astype(int) - expected).max() <= 2, numbers
            np.testing.assert_allclose(landmarks, points, atol=0.02, err_msg=str(numbers))
