"""The head as a surface in cylinder coordinates: its distance ρ from the vertical axis, in millimeters.

x points right in the picture, y down, z to the viewer; the origin lies on the axis at the height of the eyes. The angle
θ is 0 in the middle of the face and grows towards +x, so that a point of the surface is (ρ sin θ, y, ρ cos θ).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.opencv import cv2
from visavis.synthetic.identity import Identity, Map, between, smoothstep

TOP, BOTTOM = -160.0, 200.0  # y of the first and last row
SIDE = np.deg2rad(135.0)  # θ of the last column; a yaw of 40° shows no more
ROWS, COLUMNS = 225, 273  # 1.6 mm a texel on the face


@dataclass(frozen=True)
class FaceLayout:
    """Where the features of a person lie, in millimeters in the front view, and how large they are."""

    eye_x: float
    eye_half_width: float
    eye_open: float
    eye_tilt: float
    brow_y: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_half_width: float
    chin_y: float
    hairline_y: float


def plan(person: Identity) -> FaceLayout:
    """Turn factors into places."""
    nose_y = between(person.nose_length, 31.0, 47.0)
    mouth_y = nose_y + between(person.philtrum, 22.0, 33.0) + 2.0 * person.mouth_height
    return FaceLayout(
        eye_x=between(person.eye_spacing, 27.5, 37.5),
        eye_half_width=between(person.eye_size, 11.5, 17.0),
        eye_open=between(person.eye_openness, 0.27, 0.50),
        eye_tilt=between(person.eye_tilt, -0.16, 0.22),
        brow_y=-between(person.brow_height, 14.0, 24.0),
        nose_y=nose_y,
        nose_width=between(person.nose_width, 11.0, 20.0),
        mouth_y=mouth_y,
        mouth_half_width=between(person.mouth_width, 19.0, 30.0),
        chin_y=mouth_y + between(person.chin_height, 30.0, 50.0),
        hairline_y=-between(person.hairline, 48.0, 80.0),
    )


def grid(rows: int = ROWS, columns: int = COLUMNS) -> tuple[Map, Map]:
    """y (rows, 1) and θ (1, columns) of the texels of a map."""
    y = np.linspace(TOP, BOTTOM, rows, dtype=np.float32)[:, None]
    theta = np.linspace(-SIDE, SIDE, columns, dtype=np.float32)[None]
    return y, theta


def bump(x: Map, y: Map, center: tuple[float, float], width: float, height: float) -> Map:
    """A Gaussian hill of height 1 over x (h, w) and y (h, 1) or (h, w)."""
    dy = (y - np.float32(center[1])) / np.float32(height)
    if y.shape[1] != 1 or x.shape[0] != y.shape[0]:
        dx = (x - np.float32(center[0])) / np.float32(width)
        return np.exp(np.float32(-0.5) * (dx * dx + dy * dy))
    hill = np.zeros(x.shape, np.float32)  # only rows within 3.7 widths differ from 0 by more than a thousandth
    near = np.flatnonzero(np.abs(dy[:, 0]) < 3.7)
    if len(near):
        rows = slice(near[0], near[-1] + 1)
        dx = (x[rows] - np.float32(center[0])) / np.float32(width)
        hill[rows] = np.exp(np.float32(-0.5) * dx * dx) * np.exp(np.float32(-0.5) * dy[rows] ** 2)
    return hill


def skull(person: Identity, places: FaceLayout) -> Map:
    """RenderedHead, neck and shoulders without features."""
    y, theta = grid()
    wide = between(person.head_width, 0.91, 1.09)
    deep = between(person.head_length, 0.94, 1.06)
    jaw = between(person.jaw_width, 0.84, 1.12)
    chin = places.chin_y
    heights = [-116, -113, -106, -92, -70, -40, 0, 25, 0.62 * chin, 0.86 * chin, chin, chin + 14]
    widths = [0, 26, 44, 60, 71, 77, 77, 75 + 2.5 * person.cheekbones, 68 * jaw, 56 * jaw, 40 * jaw, 26 * jaw]
    depths = [0, 34, 56, 76, 89, 94 + 2 * person.forehead, 90, 90, 92, 91, 88 + 4 * person.chin_prominence, 60]
    line = y[:, 0]
    a = np.interp(line, heights, widths).astype(np.float32)[:, None] * np.float32(wide)
    b = np.interp(line, heights, depths).astype(np.float32)[:, None] * np.float32(deep)
    back = np.where(np.abs(theta) > np.pi / 2, np.float32(1.05), np.float32(1.0))
    power = np.float32(2.25)
    sine, cosine = np.abs(np.sin(theta)), np.abs(np.cos(theta))
    head = ((sine / (a + 1e-3)) ** power + (cosine / (b * back + 1e-3)) ** power) ** (-1 / power)
    # The jaw rises from the chin to below the ear; underneath is the neck, then the shoulders.
    rise = between(person.jaw_angle, 26.0, 50.0)
    edge = chin + 3 - rise * smoothstep(np.abs(theta), 0.35, 1.45)
    neck_wide = between(person.jaw_width, 50.0, 62.0)
    shoulders = smoothstep(y, chin + 30, chin + 80)
    neck_a, neck_b = neck_wide + 130 * shoulders, 46 + 34 * shoulders
    neck = ((sine / neck_a) ** 2 + (cosine / neck_b) ** 2) ** np.float32(-0.5)
    below = smoothstep(y - edge, -2.0, 9.0)
    rho = head * (1 - below) + neck * below
    return cv2.GaussianBlur(rho.astype(np.float32), (0, 0), 2.0)


def features(person: Identity, places: FaceLayout, rho: Map) -> Map:
    """Add eyes, nose, cheeks, mouth mound, chin and ears to the skull; `rho` is changed and returned."""
    y, theta = grid()
    x = rho * np.sin(theta)
    side = np.abs(x)
    front = (np.abs(theta) < 1.4).astype(np.float32)
    eye = (places.eye_x, 0.0)
    depth = between(person.eye_depth, 4.0, 10.0)
    add = -depth * bump(side, y, (eye[0] - 2, -1.0), 15.0, 10.0)
    add += between(person.brow_ridge, 1.0, 6.5) * bump(side, y, (places.eye_x - 4, places.brow_y + 3), 20.0, 6.5)
    add += 4.0 * bump(side, y, eye, 0.62 * places.eye_half_width, 6.0)
    add += between(person.cheekbones, -0.5, 6.0) * bump(side, y, (48.0, 22.0), 15.0, 11.0)
    add += between(person.cheek_fullness, -6.0, 5.0) * bump(side, y, (42.0, places.mouth_y - 8), 16.0, 18.0)
    add -= 3.0 * bump(side, y, (70.0, -22.0), 14.0, 18.0)
    add += _nose(person, places, x, side, y)
    add += 5.5 * bump(x, y, (0.0, places.mouth_y), 25.0, 15.0)
    add -= between(person.philtrum, 0.3, 1.6) * bump(x, y, (0, places.mouth_y - 13), 2.6, 5.0)
    groove = places.mouth_y + 0.38 * (places.chin_y - places.mouth_y)
    add -= 4.0 * bump(x, y, (0.0, groove), 18.0, 4.5)
    chin_width = between(person.chin_width, 9.0, 24.0)
    add += between(person.chin_prominence, 2.0, 9.0) * bump(x, y, (0.0, places.chin_y - 10), chin_width, 9.0)
    rho += add * front
    size = between(person.ear_size, 21.0, 34.0)
    u = (np.abs(theta) - np.float32(1.62)) / np.float32(0.17)
    v = (y - np.float32(0.42 * places.nose_y)) / np.float32(size)
    shell = np.exp(-((u * u + v * v) ** 2))
    rho += between(person.ear_protrusion, 8.0, 26.0) * shell * (0.75 + 0.35 * np.clip(u, -1, 1))
    return rho


def _nose(person: Identity, places: FaceLayout, x: Map, side: Map, y: Map) -> Map:
    """Bridge, tip, wings and the step below the tip."""
    tip = places.nose_y
    high = between(person.nose_projection, 15.0, 28.0)
    bridge = between(person.nose_bridge, 2.0, 9.0)
    down = smoothstep(y, -12.0, tip)
    along = (bridge * smoothstep(y, -20.0, 2.0) * (1 - down) + high * down**1.3) * (
        1 - smoothstep(y, tip - 0.5, tip + 10.0)
    )
    along += between(person.nose_hump, -3.0, 5.5) * np.exp(-0.5 * ((y - 0.45 * tip) / 7.0) ** 2)
    lateral = between(person.nose_bridge, 5.5, 8.0) + (0.45 * places.nose_width - 2.0) * down
    body = along * np.exp(-0.5 * (x / lateral) ** 2)
    ball = 3.5 * bump(x, y, (0.0, tip - 1.5 - 2.5 * person.nose_upturn), 0.42 * places.nose_width, 5.0)
    wings = 8.5 * bump(side, y, (0.82 * places.nose_width, tip + 2.0), 4.4, 5.0)
    return body + ball + wings


def point(rho: Map, x: float, y: float) -> Map:
    """The place (3,) on the surface that the front view shows at (x, y)."""
    row = (y - TOP) / (BOTTOM - TOP) * (ROWS - 1)
    low = int(row)
    part = row - low
    middle = slice(COLUMNS // 2 - 70, COLUMNS // 2 + 71)
    line = rho[low, middle] * (1 - part) + rho[low + 1, middle] * part
    angle = np.linspace(-SIDE, SIDE, COLUMNS)[middle]
    theta = np.interp(x, line * np.sin(angle), angle)
    radius = np.interp(theta, angle, line)
    return np.array([radius * np.sin(theta), y, radius * np.cos(theta)])
