"""What is worn in one picture and not in the next: clothes, hat, mask, glasses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from visavis.opencv import cv2
from visavis.synthetic.conditions import Conditions
from visavis.synthetic.geometry import BOTTOM, TOP, FaceLayout, grid, point
from visavis.synthetic.identity import Map, between, smoothstep
from visavis.synthetic.rays import Pose
from visavis.synthetic.texture import SHAPE
from visavis.types import ByteArray


def apply_accessories(places: FaceLayout, conditions: Conditions, rho: Map, colors: ByteArray) -> None:
    """Put clothes, hat and mask on; `rho` and `colors` are changed; `rho` (H, W), `colors` (H, W, 3)."""
    collar = places.chin_y + 30
    start = round((collar - TOP) / (BOTTOM - TOP) * (SHAPE[0] - 1))
    colors[start:] = conditions.clothes.astype(np.uint8)
    if conditions.hat:
        _hat(places, conditions, rho, colors)
    if conditions.mask:
        _mask(places, conditions, rho, colors)


def _hat(places: FaceLayout, conditions: Conditions, rho: Map, colors: ByteArray) -> None:
    y, theta = grid()
    rim = -44.0 - 6.0 * conditions.glasses_shape[0] + 10.0 * smoothstep(np.abs(theta), 0.9, 1.7)
    on = smoothstep(rim - y, -1.5, 1.5) * smoothstep(y, -121, -108)
    tall = 9.0 + 5.0 * conditions.glasses_shape[2]
    hull = cv2.GaussianBlur(rho, (0, 0), 5.0) + tall
    crown = np.maximum(rho, hull * (y < -30))
    rho += on * (crown - rho)
    if conditions.hat == 2:
        brim = (
            np.exp(-(((y - rim - 1.5) / 2.6) ** 2)) * np.clip(np.cos(theta * 1.5), 0, 1) ** 0.6 * (np.abs(theta) < 1.04)
        )
        rho += 52.0 * brim
    y2, theta2 = grid(*SHAPE)
    rim2 = -44.0 - 6.0 * conditions.glasses_shape[0] + 10.0 * smoothstep(np.abs(theta2), 0.9, 1.7)
    low = 6.0 if conditions.hat == 2 else 0.0
    reach = low * (np.abs(theta2) < 1.04)
    last = round((-30 - TOP) / (BOTTOM - TOP) * (SHAPE[0] - 1))
    cover = (y2 < rim2 + reach)[:last]
    colors[:last][cover] = conditions.accessory_colors[1].astype(np.uint8)


def _mask(places: FaceLayout, conditions: Conditions, rho: Map, colors: ByteArray) -> None:
    y, theta = grid()
    x = rho * np.sin(theta)
    top = 0.38 * places.nose_y + 12 * (np.abs(x) / 60) ** 2
    on = (
        smoothstep(y - top, -1, 2)
        * (1 - smoothstep(y, places.chin_y - 4, places.chin_y + 4))
        * (1 - smoothstep(np.abs(theta), 0.9, 1.0))
    )
    hull = cv2.GaussianBlur(cv2.dilate(rho, np.ones((21, 13), np.uint8)), (0, 0), 5.0) + 2.0
    rho += on * (hull - rho)
    cover = cv2.resize(on, (SHAPE[1], SHAPE[0]))[..., None]
    pleats = 1 + 0.05 * np.sin(grid(*SHAPE)[0] * 0.55)[..., None]
    colors[:] = np.clip(colors + cover * (conditions.accessory_colors[2] * pleats - colors), 0, 255).astype(np.uint8)


def glasses(places: FaceLayout, conditions: Conditions, rho: Map, pose: Pose, place: Map, lit: Map) -> None:
    """Draw spectacles over a rendered picture; `lit` is changed."""
    if not conditions.glasses:
        return
    round_, wide, thick = conditions.glasses_shape
    half_w, half_h = between(wide, 19.0, 26.0), between(round_, 12.0, 19.0)
    power = 2.0 if round_ > 0 else 4.0
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    ring = np.stack([np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power) * half_w,
                     np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power) * half_h], 1)  # fmt: skip
    center = max(places.eye_x, half_w + 5.0)
    depth = max(point(rho, 0.0, -4.0)[2] + 3.0, point(rho, places.eye_x, 0.0)[2] + 10.0)
    color = (conditions.accessory_colors[0] / 255) ** 2 * (0.3 * conditions.key + conditions.ambient)
    scale = float(np.sqrt(abs(np.linalg.det(place[:, :2]))))
    stroke = max(1, round((1.2 + 1.8 * thick) * scale))

    def seen(points: Map) -> npt.NDArray[np.int32]:
        flat = pose.project(points) @ place[:, :2].T + place[:, 2]
        return np.round(flat * 16).astype(np.int32)

    rings = []
    for sign in (-1, 1):
        x = sign * center + ring[:, 0]
        back = depth - 0.006 * np.abs(x) ** 2 * 0.8
        rings.append(seen(np.column_stack([x, ring[:, 1] + 3.0, back])))
    alpha = np.zeros(lit.shape[:2], np.uint8)
    if conditions.glasses == 2:
        for r in rings:
            cv2.fillPoly(alpha, [r], 225, cv2.LINE_AA, 4)
        _over(lit, alpha, np.array([0.012, 0.012, 0.014], np.float32))
    alpha[:] = 0
    for r in rings:
        cv2.polylines(alpha, [r], True, 235, stroke, cv2.LINE_AA, 4)
    nose = seen(np.array([[-(center - half_w), 0, depth], [0, -2.5, depth + 1], [center - half_w, 0, depth]]))
    cv2.polylines(alpha, [nose], False, 235, stroke, cv2.LINE_AA, 4)
    sign = -1 if conditions.yaw > 0 else 1  # the arm on the side turned to the camera; the other is behind the face
    hinge = depth - 0.0048 * (center + half_w) ** 2
    arm = seen(np.array([[sign * (center + half_w), 0, hinge], [sign * 79.0, -2, 0.0]]))
    cv2.polylines(alpha, [arm], False, 235, stroke, cv2.LINE_AA, 4)
    _over(lit, alpha, color.astype(np.float32))


def _over(lit: Map, alpha: ByteArray, color: Map) -> None:
    lit += (alpha.astype(np.float32) / 255)[..., None] * (color - lit)
