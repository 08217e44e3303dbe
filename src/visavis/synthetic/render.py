"""From a person and the conditions of a picture to pixels: rays against the surface, light, shade, camera."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from visavis._moved import former_arguments
from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.synthetic import accessories, camera, expression, texture
from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.geometry import FaceLayout, features, grid, plan, point, skull
from visavis.synthetic.identity import Identity, Map, generator, sample_identity
from visavis.synthetic.rays import Pose, cast, rotation, shade, shadow
from visavis.types import ByteArray
from visavis.vision.alignment import estimate_similarity, template_points


@dataclass(frozen=True)
class RenderedHead:
    """What all pictures of a person share."""

    person: Identity
    places: FaceLayout
    rho: Map
    colors: ByteArray


@functools.lru_cache(maxsize=8)
def head(seed: int, identity: int) -> RenderedHead:
    """Build a person once; the last few are kept, since pictures of one person mostly come in a row."""
    return build(sample_identity(seed, identity))


def build(person: Identity) -> RenderedHead:
    """Sculpt and paint a person."""
    places = plan(person)
    rho = features(person, places, skull(person, places))
    colors = texture.base_colors(person, places, rho)
    rho = rho + texture.hair_relief(person, places)
    rho[grid()[0][:, 0] < -117] -= 25  # nothing above the crown, not even a hair's breadth around the axis
    return RenderedHead(person, places, rho, colors)


@former_arguments(picture="image")
def face(seed: int, identity: int, image: int, *, size: int = 112, difficulty: float = 1.0) -> tuple[ByteArray, Map]:
    """One picture of one person as a detector and aligner would hand it on, and its exact landmarks.

    Args:
        seed: the world of people.
        identity: which person, 0 or more.
        image: which picture of the person, 0 or more.
        size: height and width in pixels.
        difficulty: how much the picture may hide the person, 0–3; 1 is calibrated so that the cosine of raw pixels
            verifies at most 65 % of pairs.

    Returns:
        uint8 (size, size, 3) RGB on the ArcFace template, up to the error of a detector, and float (5, 2) landmarks.

    Raises:
        DataError: a number out of range.
    """
    check_request(seed, identity, image, size, difficulty)
    rng = generator(seed, identity, image)
    conditions = sample_conditions(rng, difficulty)
    return draw(head(seed, identity), conditions, rng, size)


def check_request(seed: int, identity: int, image: int, size: int, difficulty: float) -> None:
    """Refuse numbers that no face can be drawn for."""
    if min(seed, identity, image) < 0:
        raise DataError(f"seed, identity and picture count from 0, got {seed}, {identity} and {image}")
    if not 16 <= size <= 1024:
        raise DataError(f"the size of a generated face must lie in [16, 1024] pixels, got {size}")
    if not 0 <= difficulty <= 3:
        raise DataError(f"difficulty must lie in [0, 3], got {difficulty}; 1 is the default")


def draw(who: RenderedHead, conditions: Conditions, rng: np.random.Generator, size: int) -> tuple[ByteArray, Map]:
    """Draw a person under given conditions on the ArcFace template; image (H, W, 3), landmarks (5, 2)."""
    rho, colors, pose, flat = prepare(who, conditions)
    target = template_points("arcface", (size, size))
    wanted = estimate_similarity(flat + conditions.jitter / 0.56, target)
    landmarks = flat @ wanted[:, :2].T + wanted[:, 2]
    backdrop = camera.background(rng, (size, size))
    image = render(who, conditions, rho, colors, pose, wanted, backdrop)
    return camera.develop(image, conditions, rng, size / 112), landmarks


def prepare(who: RenderedHead, conditions: Conditions) -> tuple[Map, ByteArray, Pose, Map]:
    """The surface and colors of one picture, its pose and its landmarks in millimeters of the picture plane (5, 2)."""
    rho, colors = who.rho.copy(), who.colors.copy()
    expression.press_expression(who.person, who.places, conditions, rho)
    expression.paint_features(who.person, who.places, rho, conditions, colors)
    solid = landmarks_3d(who.places, conditions, rho)
    accessories.apply_accessories(who.places, conditions, rho, colors)
    pose = Pose(rotation(conditions.yaw, conditions.pitch, conditions.roll), conditions.camera)
    return rho, colors, pose, pose.project(solid)


def landmarks_3d(places: FaceLayout, conditions: Conditions, rho: Map) -> Map:
    """Left eye, right eye, nose tip, left and right mouth corner (5, 3) on the surface."""
    corner = places.mouth_half_width + 5.0 * conditions.smile
    corner_y = places.mouth_y - 4.5 * conditions.smile
    front = [(-places.eye_x, 0), (places.eye_x, 0), (0, places.nose_y - 1), (-corner, corner_y), (corner, corner_y)]
    return np.array([point(rho, x, y) for x, y in front])


def render(
    who: RenderedHead,
    conditions: Conditions,
    rho: Map,
    colors: ByteArray,
    pose: Pose,
    place: Map,
    backdrop: Map,
) -> Map:
    """Light reflected towards each pixel, (H, W, 3), linear; `place` (2, 3) maps the picture plane to pixels."""
    hit = cast(rho, pose, place, backdrop.shape[:2])
    across, down = hit.column * np.float32(texture.SCALE), hit.row * np.float32(texture.SCALE)
    albedo = cv2.remap(colors, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    albedo *= albedo * np.float32(1 / 65025)
    light = (pose.rotation.T @ conditions.light).astype(np.float32)
    lit = shade(rho, hit, pose, albedo, conditions, shadow(rho, hit, light), light)
    lit = backdrop + hit.coverage[..., None] * (lit - backdrop)
    accessories.glasses(who.places, conditions, rho, pose, place, lit)
    return lit
