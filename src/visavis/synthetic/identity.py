"""What makes a generated person that person: independent factors, drawn once from (seed, identity)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Map = npt.NDArray[Any]  # float32 throughout; OpenCV's stubs cannot say so
_PERSON, _IMAGE = 0, 1


@dataclass(frozen=True)
class Identity:
    """The factors of a person, each uniform in [-1, 1] and independent of all others.

    −1 and 1 are the ends of what the painter and the sculptor can show, not of what people look like; how a factor
    becomes millimeters or color is said where it is used. `marks` holds what needs more than one number: the places
    and sizes of moles and the grain of freckles, hair and wrinkles, as seeds.
    """

    head_width: float
    head_length: float
    forehead: float
    jaw_width: float
    jaw_angle: float
    chin_height: float
    chin_width: float
    chin_prominence: float
    cheekbones: float
    cheek_fullness: float
    brow_ridge: float
    eye_spacing: float
    eye_size: float
    eye_openness: float
    eye_tilt: float
    eye_depth: float
    lid_crease: float
    eye_bags: float
    lashes: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    brow_length: float
    brow_darkness: float
    nose_length: float
    nose_width: float
    nose_bridge: float
    nose_projection: float
    nose_hump: float
    nose_upturn: float
    mouth_height: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lip_bow: float
    lip_color: float
    philtrum: float
    ear_size: float
    ear_protrusion: float
    skin_tone: float
    skin_redness: float
    skin_yellowness: float
    freckles: float
    moles: float
    wrinkles: float
    iris_lightness: float
    iris_hue: float
    hair_lightness: float
    hair_warmth: float
    hair_gray: float
    hair_amount: float
    hair_length: float
    hair_volume: float
    hair_curl: float
    hairline: float
    hairline_recession: float
    fringe: float
    parting: float
    beard: float
    beard_shape: float
    moustache: float
    marks: int


FACTORS = tuple(field.name for field in fields(Identity) if field.name != "marks")


def generator(seed: int, identity: int, image: int | None = None) -> np.random.Generator:
    """The stream of random numbers of a person (`image` None) or of one picture; the same in every process."""
    key = [seed, identity, _PERSON, 0] if image is None else [seed, identity, _IMAGE, image]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def sample_identity(seed: int, identity: int) -> Identity:
    """Draw person number `identity` of the world `seed`."""
    rng = generator(seed, identity)
    values = rng.uniform(-1.0, 1.0, len(FACTORS))
    return Identity(*(float(v) for v in values), marks=int(rng.integers(2**31)))


def between(value: float, low: float, high: float) -> float:
    """A factor in [-1, 1] as a quantity in [low, high]."""
    return low + (high - low) * (value + 1.0) / 2.0


def smoothstep(x: Map, low: float, high: float) -> Map:
    """0 below `low`, 1 above `high`, a smooth ramp between (`high` below `low` turns it round)."""
    t = np.clip((x - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
