"""Rays of a perspective camera against ρ(θ, y), and the light on what they meet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from visavis.data.synthetic.conditions import Conditions
from visavis.data.synthetic.geometry import BOTTOM, COLUMNS, ROWS, SIDE, TOP, Map

_NEAR, _FAR, _STEPS = 132.0, -58.0, 17
_PER_RADIAN = np.float32((COLUMNS - 1) / (2 * SIDE))
_PER_MM = np.float32((ROWS - 1) / (BOTTOM - TOP))
_MIDDLE = np.float32((COLUMNS - 1) / 2)


@dataclass(frozen=True)
class Pose:
    """Head frame to camera frame; the camera looks down −z from `camera` millimetres away."""

    rotation: Map
    camera: float

    def project(self, points: Map) -> Map:
        """Head points (N, 3) to the picture plane through the origin (N, 2), in millimetres."""
        seen = points @ self.rotation.T
        return seen[:, :2] * (self.camera / (self.camera - seen[:, 2:]))


@dataclass(frozen=True)
class Hit:
    """Per pixel: the point met (x, y, z in the head frame), its place in the maps, and the share of head."""

    x: Map
    y: Map
    z: Map
    sine: Map
    cosine: Map
    column: Map
    row: Map
    coverage: Map


def rotation(yaw: float, pitch: float, roll: float) -> Map:
    """Head to camera: first yaw about y, then pitch about x, then roll about z."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return lean @ nod @ turn


def lookup(rho: Map, x: Map, y: Map, z: Map) -> tuple[Map, Map, Map, Map]:
    """Height of points above the surface, their distance from the axis, and their column and row in the map."""
    radius, angle = cv2.cartToPolar(z, x)
    angle = np.where(angle > np.pi, angle - np.float32(2 * np.pi), angle)
    column = angle * _PER_RADIAN + _MIDDLE
    row = (y - np.float32(TOP)) * _PER_MM
    surface = cv2.remap(rho, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return radius - surface, radius, column, row


def cast(rho: Map, pose: Pose, place: Map, shape: tuple[int, int]) -> Hit:
    """Find what each pixel of a picture of `shape` sees; `place` (2, 3) maps the picture plane to pixels."""
    back = np.linalg.inv(np.vstack([place, [0, 0, 1]]))
    height, width = shape
    u, v = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    qx = np.float32(back[0, 0]) * u + np.float32(back[0, 1]) * v + np.float32(back[0, 2])
    qy = np.float32(back[1, 0]) * u + np.float32(back[1, 1]) * v + np.float32(back[1, 2])
    inverse = pose.rotation.T.astype(np.float32)
    near = np.float32(-1 / pose.camera)
    # A point of depth t on a pixel's ray is a + t·b in the head frame.
    a = [inverse[k, 0] * qx + inverse[k, 1] * qy for k in range(3)]
    b = [near * a[k] + inverse[k, 2] for k in range(3)]
    t = _first_meeting(rho, [m[::2, ::2] for m in a], [m[::2, ::2] for m in b])
    t = cv2.resize(cv2.dilate(t, np.ones((3, 3), np.uint8)), (width, height), interpolation=cv2.INTER_NEAREST)
    pixel = np.float32(np.sqrt(abs(np.linalg.det(back[:2, :2]))))
    gap = nearest = np.full(shape, np.float32(1e9))
    for k in range(5):
        gap, *_ = lookup(rho, a[0] + t * b[0], a[1] + t * b[1], a[2] + t * b[2])
        nearest = np.minimum(nearest, gap)
        t -= np.clip(np.float32(0.8 if k < 3 else 0.6) * gap, -4, 9)
    _look_behind(rho, a, b, t, gap, nearest, pixel)
    x, y, z = (a[k] + t * b[k] for k in range(3))
    gap, radius, column, row = lookup(rho, x, y, z)
    coverage = np.clip(1.6 - np.minimum(gap, nearest) / pixel, 0, 1)
    radius = np.maximum(radius, 1e-3)
    return Hit(x, y, z, x / radius, z / radius, column, row, coverage)


def _first_meeting(rho: Map, a: list[Map], b: list[Map]) -> Map:
    """March from the camera inwards: a depth just before the surface, or where the ray passes it most closely."""
    step = (_NEAR - _FAR) / _STEPS
    best = np.full(a[0].shape, np.float32(1e9))
    found = np.full(a[0].shape, np.float32(_NEAR))
    for k in range(_STEPS + 1):
        depth = np.float32(_NEAR - k * step)
        gap, *_ = lookup(rho, a[0] + depth * b[0], a[1] + depth * b[1], a[2] + depth * b[2])
        better = (gap < best) & (best > 0)
        best[better] = gap[better]
        found[better] = depth
    return found + np.where(best < 0, np.float32(step), np.float32(0))


def _look_behind(rho: Map, a: list[Map], b: list[Map], t: Map, gap: Map, nearest: Map, pixel: np.float32) -> None:
    """Rays that graze an edge (nose, cheek, hair) go on to what lies behind it; `t` and `nearest` are changed."""
    rows, columns = np.nonzero(gap > 0.6 * pixel)
    if not len(rows):
        return
    a, b = [m[rows, columns][None] for m in a], [m[rows, columns][None] for m in b]
    depth = t[rows, columns][None]
    least, closest = nearest[rows, columns][None], depth.copy()
    inside = np.zeros(depth.shape, bool)
    for _ in range(30):
        gap, *_ = lookup(rho, a[0] + depth * b[0], a[1] + depth * b[1], a[2] + depth * b[2])
        better = gap < least
        least, closest = np.where(better, gap, least), np.where(better, depth, closest)
        inside |= gap <= 0.4 * pixel
        step = np.where(inside, np.clip(0.7 * gap, -4, 4), np.clip(0.8 * gap, 1.2, 12))
        depth = depth - step
        if not (~inside & (depth > _FAR)).any():
            break
    for _ in range(2):
        gap, *_ = lookup(rho, a[0] + depth * b[0], a[1] + depth * b[1], a[2] + depth * b[2])
        depth = depth - np.clip(0.7 * gap, -4, 4)
    t[rows, columns] = np.where(inside, depth, closest)
    nearest[rows, columns] = np.where(inside, 0, least)


def shadow(rho: Map, hit: Hit, light: Map) -> Map:
    """How much of the key light reaches each pixel, 0–1, with soft borders; marched at half resolution."""
    x, y, z = (m[::2, ::2] for m in (hit.x, hit.y, hit.z))
    blocked = np.zeros(x.shape, np.float32)
    for distance in (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 52.0, 70.0):
        gap, *_ = lookup(rho, x + distance * light[0], y + distance * light[1], z + distance * light[2])
        np.maximum(blocked, gap * np.float32(-1 / (1.0 + 0.09 * distance)), out=blocked)
    free = 1 - np.clip(blocked, 0, np.float32(0.88))
    free = cv2.GaussianBlur(free, (3, 3), 0.8)
    return cv2.resize(free, (hit.x.shape[1], hit.x.shape[0]), interpolation=cv2.INTER_LINEAR)


def shade(
    rho: Map,
    hit: Hit,
    pose: Pose,
    albedo: Map,
    now: Conditions,
    free: Map,
    light: Map,
) -> Map:
    """Ambient light from above, soft diffuse key light, a little gloss."""
    slope = cv2.merge([cv2.Sobel(rho, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(rho, cv2.CV_32F, 0, 1, scale=1 / 8)])
    local = cv2.remap(slope, hit.column, hit.row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    radius = np.maximum(hit.x * hit.sine + hit.z * hit.cosine, 5)
    around = np.clip(local[..., 0] * _PER_RADIAN / radius, -2.5, 2.5)
    along = np.clip(local[..., 1] * _PER_MM, -2.5, 2.5)
    length = 1 / np.sqrt(1 + around * around + along * along)
    nx, nz = (hit.sine - around * hit.cosine) * length, (hit.cosine + around * hit.sine) * length
    ny = -along * length
    facing = nx * light[0] + ny * light[1] + nz * light[2]
    soft = np.float32(0.18)
    diffuse = np.clip((facing + soft) / (1 + soft), 0, None) * free
    up = pose.rotation.T[:, 1].astype(np.float32)
    sky = 0.78 - 0.22 * (nx * up[0] + ny * up[1] + nz * up[2])
    eye = pose.rotation.T[:, 2].astype(np.float32)
    half = light + eye
    half = half / max(1e-3, float(np.linalg.norm(half)))
    shine = np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0, 1)
    for _ in range(4):
        shine *= shine
    shine *= free * np.float32(now.gloss)
    out = sky[..., None] * now.ambient
    out += diffuse[..., None] * now.key
    out *= albedo
    out += shine[..., None] * now.key
    return out
