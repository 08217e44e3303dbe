"""Embedders without a network, and images they tell people by."""

import numpy as np

from visavis.types import Pairs


class FakeEmbedder:
    """The mean color of a crop, centered, as a unit vector; counts what it is asked."""

    dim = 3

    def __init__(self):
        self.seen = 0

    def embed(self, crops):
        self.seen += len(crops)
        rows = crops.reshape(len(crops), -1, 3).mean(axis=1) - 127.5
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(identities=20, images_per_identity=4, seed=0):
    """Pictures of noisy colors and 10 folds of pairs."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(30, 226, (identities, 3))
    images = {}
    for i in range(identities):
        for p in range(images_per_identity):
            crop = colors[i] + rng.normal(0, 25, 3) + rng.normal(0, 3, (8, 8, 3))
            images[f"id{i}/id{i}_{p}.jpg"] = np.clip(crop, 0, 255).astype(np.uint8)
    names = tuple(images)
    rows = []
    for k in range(300):
        i, j = rng.choice(identities, 2, replace=False)
        a, b = rng.choice(images_per_identity, 2, replace=False)
        rows.append(
            (i * images_per_identity + a, i * images_per_identity + b, True)
            if k % 2
            else (i * images_per_identity + a, j * images_per_identity + b, False)
        )
    reference, probe, genuine = (np.array(c) for c in zip(*rows, strict=True))
    return images, Pairs(names, reference, probe, genuine.astype(bool), np.arange(300) * 10 // 300)


IMAGES = 40


class Brightness:
    """A feature whose length grows with contrast; counts the pictures it is shown."""

    dim = 4

    def __init__(self):
        self.seen = 0
        self.mixing = np.random.default_rng(0).normal(size=(48, 4))

    def views(self, crops):
        x = crops.astype(np.float64) - 127.5
        return [v.reshape(len(crops), -1) @ self.mixing for v in (x, x[:, :, ::-1])]

    def measure(self, crops):
        self.seen += len(crops)
        views = self.views(crops)
        return sum(views).astype(np.float32), np.mean([np.linalg.norm(v, axis=1) for v in views], axis=0)

    def embed(self, crops):
        rows, _ = self.measure(crops)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def contrast_world():
    rng = np.random.default_rng(1)
    images = {f"p{i // 4}/{i % 4}.png": rng.integers(0, 256, (4, 4, 3)).astype(np.uint8) for i in range(IMAGES)}
    a = np.repeat(np.arange(IMAGES - 1), 2)
    b = (a + np.tile([1, 7], IMAGES - 1)) % IMAGES
    return images, Pairs(tuple(images), a, b, a // 4 == b // 4, np.arange(len(a)) % 10)
