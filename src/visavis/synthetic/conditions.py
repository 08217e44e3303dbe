"""What a picture adds and a recognizer must ignore: pose, expression, light, things worn, camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.synthetic.identity import Map


@dataclass(frozen=True)
class Conditions:
    """One picture. Angles in radians; `yaw` > 0 turns the face to the right of the picture, `pitch` > 0 down."""

    yaw: float
    pitch: float
    roll: float
    camera: float  # distance in millimeters
    smile: float  # -0.6 (sad) to 1
    mouth_open: float  # 0 to 1
    brow_raise: float  # -1 to 1
    frown: float  # 0 to 1
    eye_opening: float  # 0.15 (nearly shut) to 1.15
    gaze: tuple[float, float]  # -1 to 1 right, -1 to 1 down
    light: Map  # (3,) unit vector towards the key light, in the camera's frame
    key: Map  # (3,) color times strength
    ambient: Map  # (3,)
    gloss: float
    clothes: Map  # (3,) color
    glasses: int  # 0 none, 1 clear, 2 dark
    glasses_shape: tuple[float, float, float]
    hat: int  # 0 none, 1 cap without brim, 2 with brim
    mask: bool
    accessory_colors: Map  # (3, 3): colors of glasses, hat and mask
    gamma: float
    exposure: float
    tint: Map  # (3,)
    contrast: float
    blur: float  # pixels of a 112-pixel crop
    motion: tuple[float, float]  # pixels, radians
    noise: float  # gray levels
    quality: int  # of the JPEG
    resolution: float  # 1 = full
    jitter: Map  # (5, 2) error of the detector, in pixels of a 112-pixel crop


def sample_conditions(rng: np.random.Generator, difficulty: float) -> Conditions:
    """Draw one picture's conditions; `difficulty` 0 is a passport photo, 1 the default, 2 twice as wild."""
    d = float(difficulty)

    def spread(limit: float, share: float = 0.45) -> float:
        """Normal, cut off at the limit; at difficulty 1 the spread is `share` of the limit."""
        return float(np.clip(rng.normal(0.0, share * d), -1, 1)) * limit

    def chance(p: float) -> bool:
        return bool(rng.random() < min(0.9, p * d))

    yaw, pitch, roll = np.deg2rad(spread(40, 0.5)), np.deg2rad(spread(18)), np.deg2rad(spread(25, 0.4))
    camera = 1.0 / (1 / 2500 + rng.random() * d * (1 / 500 - 1 / 2500) * 0.7)
    smile = float(np.clip(rng.normal(0.25, 0.45) * min(d, 1.5), -0.6, 1))
    mouth_open = float(np.clip(rng.normal(-0.1, 0.4), 0, 1)) * min(d, 1.3)
    brow, frown = spread(1.0, 0.4), abs(spread(1.0, 0.35))
    opening = float(np.clip(1.0 - abs(rng.normal(0, 0.16)) * d - (0.7 * chance(0.03)), 0.12, 1.15))
    gaze = (spread(1.0, 0.45), spread(1.0, 0.45))
    azimuth, height = spread(1.5, 0.6), 0.35 + spread(0.8, 0.5)
    light = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), np.cos(azimuth) * np.cos(height)], np.float32)
    warmth = spread(0.35, 0.4)
    key = np.array([1 + warmth, 1.0, 1 - warmth], np.float32) * np.float32(np.exp(spread(0.6, 0.45)))
    cool = spread(0.25, 0.4)
    ambient = np.array([1 + cool, 1.0, 1 - cool], np.float32) * np.float32(0.42 * np.exp(spread(0.7, 0.45)))
    gloss = float(rng.random() * 0.22)
    glasses = int(chance(0.15)) and (2 if rng.random() < 0.12 else 1)
    hat = int(chance(0.05)) and int(rng.integers(1, 3))
    mask = chance(0.015)
    tint = np.exp(rng.normal(0, 0.06 * d, 3)).astype(np.float32)
    low = chance(0.15)
    shape = (float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)), float(rng.uniform(0, 1)))
    motion = (float(rng.uniform(1, 5)) if chance(0.08) else 0.0, float(rng.uniform(0, np.pi)))
    return Conditions(
        yaw=float(yaw),
        pitch=float(pitch),
        roll=float(roll),
        camera=float(camera),
        smile=smile,
        mouth_open=mouth_open,
        brow_raise=brow,
        frown=frown,
        eye_opening=opening,
        gaze=gaze,
        light=light,
        key=key,
        ambient=ambient,
        gloss=gloss,
        clothes=rng.uniform(15, 235, 3).astype(np.float32),
        glasses=glasses,
        glasses_shape=shape,
        hat=hat,
        mask=mask,
        accessory_colors=rng.uniform(10, 230, (3, 3)).astype(np.float32),
        gamma=float(np.exp(spread(0.35, 0.4))),
        exposure=float(0.75 * np.exp(spread(0.45, 0.35))),
        tint=tint,
        contrast=float(np.exp(spread(0.3, 0.4))),
        blur=float(abs(rng.normal(0, 0.45)) * d),
        motion=motion,
        noise=float(abs(rng.normal(0, 4.0)) * d),
        quality=int(np.clip(rng.normal(75, 18), 25, 97)),
        resolution=float(rng.uniform(0.4, 0.85)) if low else 1.0,
        jitter=rng.normal(0, 0.9 * min(d, 2.0), (5, 2)),
    )
