"""Smooth images that are near duplicates of each other."""

import numpy as np

from visavis.vision import images


def face_like(seed: int, size: int = 112) -> np.ndarray:
    """A smooth picture with detail of its own over an outline all share, as aligned faces have."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    shared = 120 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) * 6)[..., None]
    coarse = images.resize(rng.integers(0, 90, (7, 7, 3), dtype=np.uint8), (size, size)).astype(float)
    fine = images.resize(rng.integers(0, 60, (28, 28, 3), dtype=np.uint8), (size, size)).astype(float)
    return np.clip(shared + coarse + fine, 0, 255).astype(np.uint8)


def altered(image: np.ndarray, how: str) -> np.ndarray:
    if how == "jpeg":
        return images.decode(images.encode(image, ".jpg", quality=40))
    if how == "brighter":
        return np.clip(image.astype(float) * 1.15 + 10, 0, 255).astype(np.uint8)
    if how == "smaller":
        return images.resize(image, (72, 72))
    return images.resize(np.ascontiguousarray(image[4:-2, 3:-3]), (112, 112))  # cropped


def put(folder, who, name, data):
    (folder / who).mkdir(parents=True, exist_ok=True)
    (folder / who / name).write_bytes(data)
