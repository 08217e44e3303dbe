"""Pictures that nobody has aligned yet: several generated people in a larger frame, with their boxes and landmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.synthetic import camera
from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.geometry import BOTTOM, SIDE, TOP
from visavis.synthetic.identity import Map
from visavis.synthetic.rays import Pose
from visavis.synthetic.render import RenderedHead, head, prepare, render
from visavis.types import ByteArray

_STREAM = 2  # besides people and pictures (identity.generator)


@dataclass(frozen=True)
class Scene:
    """A uint8 (H, W, 3) RGB picture and who is where: identities (F,), boxes (F, 4), landmarks (F, 5, 2).

    A box, as x1, y1, x2, y2, goes from ear to ear and from hairline to chin.
    """

    image: ByteArray
    identities: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    landmarks: npt.NDArray[np.float64]


def scene(
    seed: int,
    number: int,
    identities: range,
    *,
    size: tuple[int, int] = (480, 640),
    difficulty: float = 1.0,
    most: int = 5,
) -> Scene:
    """Draw scene `number`: 1 to `most` different people of `identities`, far ones behind near ones.

    Raises:
        DataError: a frame too small for a face, or nobody to draw.
    """
    height, width = size
    if min(size) < 96 or max(size) > 4096 or not len(identities) or most < 1:
        raise DataError(f"a scene wants 96 to 4096 pixels a side and at least 1 person, got {size}, {len(identities)}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, _STREAM, 0])))
    common = sample_conditions(rng, difficulty)
    count = int(rng.integers(1, min(most, len(identities)) + 1))
    who = rng.choice(len(identities), count, replace=False)
    # Millimeters to pixels: heads of about 55 pixels up to half of the frame, the small ones first.
    scales = np.sort(np.exp(rng.uniform(np.log(0.26), np.log(min(size) / 430), count)))
    lit = camera.background(rng, size)
    found: list[tuple[int, Map, Map]] = []
    for index, scale in zip(who, scales, strict=True):
        person = head(seed, identities[int(index)])
        conditions = under_same_light(sample_conditions(rng, difficulty), common)
        for _ in range(40):
            center = rng.uniform((75 * scale, 110 * scale), (width - 75 * scale, height - 135 * scale))
            x, y = center
            room = np.array([x - 100 * scale, y - 135 * scale, x + 100 * scale, y + 130 * scale])
            body = np.array([x - 215 * scale, y + 100 * scale, x + 215 * scale, height])
            if not any(_overlap(area, box) for area in (room, body) for _, box, _ in found):
                break
        else:
            continue  # no room left for this one
        box, points = add_person(lit, person, conditions, float(scale), center)
        found.append((identities[int(index)], box, points))
    image = camera.develop(lit, mild(common), rng, 1.0)
    boxes = np.array([box for _, box, _ in found])
    return Scene(image, np.array([i for i, _, _ in found], np.int64), boxes, np.array([p for _, _, p in found]))


def add_person(lit: Map, person: RenderedHead, conditions: Conditions, scale: float, center: Map) -> tuple[Map, Map]:
    """Draw one person into the frame; returns box and landmarks."""
    rho, colors, pose, flat = prepare(person, conditions)
    place = np.array([[scale, 0, center[0]], [0, scale, center[1]]])
    width = lit.shape[1]
    left, right = max(0, int(center[0] - 260 * scale)), min(width, int(center[0] + 260 * scale))
    top = max(0, int(center[1] - 200 * scale))
    shift = place - np.array([[0, 0, left], [0, 0, top]])
    window = np.ascontiguousarray(lit[top:, left:right])
    lit[top:, left:right] = render(person, conditions, rho, colors, pose, shift, window)
    outline = _outline(person, rho, pose) * scale + center
    return np.concatenate([outline.min(0), outline.max(0)]), flat * scale + center


def _outline(person: RenderedHead, rho: Map, pose: Pose) -> Map:
    """The face from ear to ear and hairline to chin as points of the picture plane (N, 2), in millimeters."""
    y = np.linspace(-58.0, person.places.chin_y, 12)
    theta = np.deg2rad(np.linspace(-80, 80, 17))
    rows = np.round((y - TOP) / (BOTTOM - TOP) * (rho.shape[0] - 1)).astype(int)
    columns = np.round((theta + SIDE) / (2 * SIDE) * (rho.shape[1] - 1)).astype(int)
    radius = rho[np.ix_(rows, columns)].astype(float)
    points = np.stack([radius * np.sin(theta), np.broadcast_to(y[:, None], radius.shape), radius * np.cos(theta)], 2)
    return pose.project(points.reshape(-1, 3))


def under_same_light(conditions: Conditions, common: Conditions) -> Conditions:
    """The conditions of one person in the light of the place."""
    return replace(conditions, light=common.light, key=common.key, ambient=common.ambient)


def mild(conditions: Conditions) -> Conditions:
    """A frame holds small faces, so that its camera must be better than that of a close-up."""
    return replace(
        conditions,
        blur=min(conditions.blur, 0.6),
        noise=min(conditions.noise, 6.0),
        resolution=1.0,
        motion=(0.0, 0.0),
        quality=max(conditions.quality, 60),
        contrast=min(max(conditions.contrast, 0.8), 1.2),
        exposure=min(max(conditions.exposure, 0.55), 1.0),
    )


def _overlap(a: Map, b: Map) -> bool:
    return bool(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
