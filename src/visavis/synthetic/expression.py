"""What an expression moves: brows, eyes and mouth, painted into a copy of the color map and pressed into the shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.synthetic.conditions import Conditions
from visavis.synthetic.geometry import BOTTOM, SIDE, TOP, FaceLayout, bump
from visavis.synthetic.identity import Identity, Map, between, smoothstep
from visavis.synthetic.texture import hair_color, skin_color
from visavis.types import ByteArray


def _patch(
    shape: tuple[int, ...], radius: float, box: tuple[float, float, float, float]
) -> tuple[slice, slice, Map, Map]:
    """Rows and columns of a map around a box (x1, y1, x2, y2) of the front view, and x and y of its texels.

    `radius` is ρ there: within so small a patch x = ρ sin θ with constant ρ is good to a fraction of a millimeter.
    """
    rows = [round((v - TOP) / (BOTTOM - TOP) * (shape[0] - 1)) for v in (box[1], box[3])]
    angles = [float(np.arcsin(np.clip(v / radius, -0.99, 0.99))) for v in (box[0], box[2])]
    columns = [round((v + SIDE) / (2 * SIDE) * (shape[1] - 1)) for v in angles]
    y = (np.arange(rows[0], rows[1], dtype=np.float32) / (shape[0] - 1) * (BOTTOM - TOP) + TOP)[:, None]
    theta = (np.arange(columns[0], columns[1], dtype=np.float32) / (shape[1] - 1) * 2 * SIDE - SIDE)[None]
    return slice(*rows), slice(*columns), np.float32(radius) * np.sin(theta), y


def _blend(patch: Map, alpha: Map, color: npt.ArrayLike) -> None:
    """Lay `color` (3,) or (..., 3) over a float patch (..., 3) with opacity `alpha` (...)."""
    patch += alpha[..., None] * (np.asarray(color, np.float32) - patch)


def paint_features(person: Identity, places: FaceLayout, rho: Map, conditions: Conditions, canvas: ByteArray) -> None:
    """Paint brows, eyes and mouth of one picture into `canvas`; `canvas` (H, W, 3)."""
    row = round((0 - TOP) / (BOTTOM - TOP) * (rho.shape[0] - 1))
    middle = rho.shape[1] // 2
    eye_radius = float(rho[row, middle + 22])
    _paint_eyes(person, places, eye_radius, conditions, canvas)
    for sign in (-1, 1):
        _paint_brow(person, places, eye_radius + 4, conditions, canvas, sign)
    row = round((places.mouth_y - TOP) / (BOTTOM - TOP) * (rho.shape[0] - 1))
    _paint_mouth(person, places, float(rho[row, middle + 12]), conditions, canvas)
    _paint_nostrils(places, float(rho[row - 18, middle + 6]), canvas)


def _paint_eyes(person: Identity, places: FaceLayout, radius: float, conditions: Conditions, canvas: ByteArray) -> None:
    """Both eyes at once: the left one's patch is turned round, so that `a` grows towards the temple in both."""
    half = places.eye_half_width
    rows, right, x, y = _patch(canvas.shape, radius, _around(places.eye_x, 0.0, half + 6, half + 3))
    left = slice(canvas.shape[1] - right.stop, canvas.shape[1] - right.start)
    patch = np.stack([canvas[rows, left][:, ::-1], canvas[rows, right]]).astype(np.float32)
    a = (x - np.float32(places.eye_x)) / np.float32(half)  # (1, w)
    b = y / np.float32(half) + np.float32(places.eye_tilt) * a  # (h, w)
    opened = places.eye_open * conditions.eye_opening
    arch = np.maximum(1 - a * a, 0)
    upper = -np.float32(1.35 * opened) * arch ** np.float32(0.75) * (1 - 0.16 * a)
    lower = np.float32(0.16 + 0.42 * opened * conditions.eye_opening) * arch
    soft = np.float32(0.8 / half)
    over, under = b - upper, lower - b
    within = (np.abs(a) < 1).astype(np.float32)
    inside = _ramp(np.minimum(over, under), soft) * within
    skin = skin_color(person)
    crease = np.float32(between(person.lid_crease, 0.08, 0.34))
    fold = np.exp(-(((over + crease) / 0.055) ** 2)) * np.clip(1.15 - a * a, 0, 1)
    _blend(patch, 0.42 * fold, skin * 0.45)
    sign = np.array([-1, 1], np.float32)[:, None, None]
    u = a - np.float32(conditions.gaze[0] * 0.28) * sign  # the gaze goes one way in the picture, so two ways in `a`
    v = b - np.float32(conditions.gaze[1] * 0.12 - 0.08)
    distance = np.sqrt(u * u + v * v)
    iris = 6.2 / half
    shade = 0.72 + 0.5 * smoothstep(distance, 0.35 * iris, 0.8 * iris) * (1 - smoothstep(distance, 0.82 * iris, iris))
    color = _iris_color(person.iris_hue, between(person.iris_lightness, 0.0, 1.0))
    white = np.array([236, 230, 226], np.float32) * (1 - 0.25 * np.abs(a[..., None]) ** 2)
    ball = np.broadcast_to(white, patch.shape).copy()
    _blend(ball, _ramp(iris - distance, 0.9 * soft), color * shade[..., None])
    _blend(ball, _ramp(0.42 * iris - distance, 0.9 * soft), (10, 8, 8))
    glint = np.sqrt((u - 0.1 * float(conditions.light[0]) * sign) ** 2 + (v + np.float32(0.14)) ** 2)
    _blend(ball, 0.85 * _ramp(np.float32(0.13) - glint, 0.9 * soft), (255, 255, 255))
    ball *= (1 - 0.45 * np.exp(-((over / 0.16) ** 2)))[..., None]
    _blend(patch, inside, ball)
    lash = np.exp(-((over / (0.05 + 0.035 * (1 + person.lashes))) ** 2)) * (np.abs(a) < 1.06)
    _blend(patch, np.float32(between(person.lashes, 0.45, 0.95)) * lash, (22, 16, 14))
    _blend(patch, 0.35 * np.exp(-((under / 0.06) ** 2)) * within, skin * 0.55)
    done = np.clip(patch, 0, 255).astype(np.uint8)
    canvas[rows, left], canvas[rows, right] = done[0, :, ::-1], done[1]


def _ramp(height: Map, width: float | np.floating[Any]) -> Map:
    """0 below −width/2, 1 above width/2: the soft edge of a shape."""
    return np.minimum(np.maximum(height / width + np.float32(0.5), 0), 1)


def _iris_color(hue: float, lightness: float) -> Map:
    """Brown when dark; blue, gray, green or amber as it gets light."""
    dark = np.array([48, 30, 20], np.float32)
    light = [(118, 164, 212), (140, 152, 160), (120, 158, 104), (186, 132, 58)]
    place = between(hue, 0.0, 3.0)
    bright = np.array([np.interp(place, range(4), [c[k] for c in light]) for k in range(3)], np.float32)
    return dark + np.float32(lightness) * (bright - dark)


def _paint_brow(
    person: Identity, places: FaceLayout, radius: float, conditions: Conditions, canvas: ByteArray, sign: int
) -> None:
    half = between(person.brow_length, 15.0, 22.0)
    middle = places.brow_y - 5.0 * conditions.brow_raise
    rows, columns, x, y = _patch(canvas.shape, radius, _around(sign * (places.eye_x + 1), middle, half + 4, 17))
    patch = canvas[rows, columns].astype(np.float32)
    a = sign * (x - np.float32(sign * (places.eye_x + 1))) / np.float32(half)
    slope = between(person.brow_tilt, -3.5, 3.0) - 3.0 * conditions.frown
    line = (
        middle
        - between(person.brow_arch, 0.0, 6.0) * (1 - (a - 0.25) ** 2)
        + slope * -a
        + 3.0 * np.clip(-a, 0, 1) * conditions.frown
    )
    thick = between(person.brow_thickness, 1.3, 4.4) * (1 - 0.55 * smoothstep(a, -0.2, 1.05))
    ends = np.clip((1 - np.abs(a)) / 0.14, 0, 1)
    alpha = np.clip((thick - np.abs(y - line)) / 1.4 + 0.5, 0, 1) * ends
    dark = between(person.brow_darkness, 0.45, 0.95)
    _blend(patch, (alpha * np.float32(dark)).astype(np.float32), 0.62 * hair_color(person))
    canvas[rows, columns] = np.clip(patch, 0, 255).astype(np.uint8)


def mouth_lines(person: Identity, places: FaceLayout, conditions: Conditions, x: Map) -> tuple[Map, Map, Map, Map, Map]:
    """Along x: reach of the lips (1 to 0 at the corners), and y of upper edge, upper gap, lower gap and lower edge."""
    half = places.mouth_half_width + 5.0 * conditions.smile
    a = np.clip(np.abs(x) / np.float32(half), 0, 1)
    reach = 1 - a * a
    line = np.float32(places.mouth_y) + np.float32(1.5 * conditions.smile) - 6.0 * conditions.smile * a * a
    gap = np.float32(11.0 * conditions.mouth_open) * reach
    full = between(person.upper_lip, 2.4, 8.4) * (1 - 0.2 * max(0.0, conditions.smile))
    bow = between(person.lip_bow, 0.0, 0.75) * np.exp(-((a / 0.22) ** 2))
    upper = line - 0.25 * gap - np.float32(full) * reach**0.8 * (1 - bow)
    low = between(person.lower_lip, 3.2, 10.4) * (1 - 0.15 * max(0.0, conditions.smile))
    return reach, upper, line - 0.25 * gap, line + 0.75 * gap, line + 0.75 * gap + np.float32(low) * reach**0.7


def _paint_mouth(
    person: Identity, places: FaceLayout, radius: float, conditions: Conditions, canvas: ByteArray
) -> None:
    half = places.mouth_half_width + 9
    rows, columns, x, y = _patch(canvas.shape, radius, (-half, places.mouth_y - 15, half, places.mouth_y + 24))
    patch = canvas[rows, columns].astype(np.float32)
    reach, upper, top, bottom, lower = mouth_lines(person, places, conditions, x)
    skin = skin_color(person)
    red = between(person.lip_color, 0.05, 1.0)
    lips = skin * (1 - red * np.array([0.22, 0.52, 0.46], np.float32))
    on = (reach > 0).astype(np.float32)
    alpha = np.clip(np.minimum(y - upper, lower - y) / 1.3 + 0.4, 0, 1) * on
    shade = np.where(y < top, 0.86, 1.0 + 0.14 * np.exp(-(((y - 0.5 * (bottom + lower)) / 2.5) ** 2)))
    _blend(patch, 0.85 * alpha, lips * shade[..., None])
    gap = np.clip(np.minimum(y - top, bottom - y) / 0.9 + 0.5, 0, 1) * on
    if conditions.mouth_open > 0.05:
        _blend(patch, gap, (58, 22, 22))
        teeth = gap * np.clip((top + 5.0 - y) / 1.2, 0, 1) * (np.abs(x) < places.mouth_half_width * 0.8)
        _blend(patch, 0.9 * teeth, (226, 220, 208))
    seam = np.exp(-(((y - 0.5 * (top + bottom)) / (1.0 + 0.0 * x)) ** 2)) * on * (conditions.mouth_open <= 0.05)
    _blend(patch, 0.75 * seam.astype(np.float32), lips * 0.3)
    corner = bump(np.abs(x), y, (places.mouth_half_width + 5.0 * conditions.smile, float(top.flat[0])), 2.2, 1.8)
    _blend(patch, 0.45 * corner, skin * 0.4)
    canvas[rows, columns] = np.clip(patch, 0, 255).astype(np.uint8)


def _paint_nostrils(places: FaceLayout, radius: float, canvas: ByteArray) -> None:
    box = (-places.nose_width - 4, places.nose_y, places.nose_width + 4, places.nose_y + 12)
    rows, columns, x, y = _patch(canvas.shape, radius + 8, box)
    patch = canvas[rows, columns].astype(np.float32)
    hole = bump(np.abs(x), y, (0.42 * places.nose_width, places.nose_y + 5.5), 2.4, 1.4)
    _blend(patch, 0.7 * np.clip(1.3 * hole, 0, 1), (34, 16, 14))
    wing = bump(np.abs(x), y, (places.nose_width + 1.5, places.nose_y + 3.5), 1.5, 3.5)
    patch *= (1 - 0.3 * wing)[..., None]
    canvas[rows, columns] = np.clip(patch, 0, 255).astype(np.uint8)


def press_expression(person: Identity, places: FaceLayout, conditions: Conditions, rho: Map) -> None:
    """Press lips, cheeks and brows of one picture into `rho`."""
    row = round((places.mouth_y - TOP) / (BOTTOM - TOP) * (rho.shape[0] - 1))
    radius = float(rho[row, rho.shape[1] // 2 + 12])
    half = places.mouth_half_width + 10
    rows, columns, x, y = _patch(rho.shape, radius, (-half, places.mouth_y - 16, half, places.mouth_y + 26))
    reach, upper, top, bottom, lower = mouth_lines(person, places, conditions, x)
    r = np.sqrt(np.clip(reach, 0, 1))
    lips = 3.0 * np.exp(-(((y - 0.5 * (upper + top)) / 3.2) ** 2)) + 3.6 * np.exp(
        -(((y - 0.5 * (bottom + lower)) / 3.8) ** 2)
    )
    rho[rows, columns] += (
        lips * r
        - (2.0 + 5.0 * conditions.mouth_open)
        * np.exp(-(((y - 0.5 * (top + bottom)) / (1.6 + 4 * conditions.mouth_open)) ** 2))
        * r
    ).astype(np.float32)
    for sign in (-1, 1):
        if conditions.smile > 0:
            rows, columns, x, y = _patch(rho.shape, radius, _around(sign * 40.0, places.nose_y + 4, 26, 26))
            rho[rows, columns] += 5.0 * conditions.smile * bump(x, y, (sign * 40.0, places.nose_y + 4), 11.0, 10.0)


def _around(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    return (x - half_width, y - half_height, x + half_width, y + half_height)
