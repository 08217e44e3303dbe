"""Rays of a perspective camera against ρ(θ, y), and the light on what they meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.opencv import cv2
from visavis.synthetic.conditions import Conditions
from visavis.synthetic.geometry import BOTTOM, COLUMNS, ROWS, SIDE, TOP, Map
from visavis.types import BoolArray, IntArray

_REMAP_SIDE = 32_766  # OpenCV counts the sides of maps in 16 bits
_NEAR, _FAR, _STEP = 132.0, -58.0, 11.0
_PER_RADIAN = np.float32((COLUMNS - 1) / (2 * SIDE))
_PER_MM = np.float32((ROWS - 1) / (BOTTOM - TOP))
_HALF_TURN = np.float32(np.pi * (COLUMNS - 1) / (2 * SIDE) - (COLUMNS - 1) / 2)


@dataclass(frozen=True)
class Pose:
    """RenderedHead frame to camera frame; the camera looks down −z from `camera` millimeters away."""

    rotation: Map
    camera: float

    def project(self, points: Map) -> Map:
        """RenderedHead points (N, 3) to the picture plane through the origin (N, 2), in millimeters."""
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
    """RenderedHead to camera: first yaw about y, then pitch about x, then roll about z."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return lean @ nod @ turn


def lookup(rho: Map, away: Map, y: Map, back: Map) -> tuple[Map, Map, Map, Map]:
    """Height of points above the surface, their distance from the axis, and their column and row in the map.

    `away` is −x and `back` is −z: the angle OpenCV gives for them, in [0, 2π), is θ + π.
    """
    radius, angle = cv2.cartToPolar(back, away)
    column = np.asarray(angle, np.float32)
    column *= _PER_RADIAN
    column -= _HALF_TURN
    row = (y - np.float32(TOP)) * _PER_MM
    surface = _sampled(rho, column, row)
    return np.subtract(radius, surface, dtype=np.float32), np.asarray(radius), column, row


def _sampled(rho: Map, column: Map, row: Map) -> Map:
    """`cv2.remap` at places (M, N), in parts where there are more than OpenCV takes a side."""
    if max(column.shape) <= _REMAP_SIDE:
        return np.asarray(cv2.remap(rho, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    found = np.empty_like(column)
    for top in range(0, column.shape[0], _REMAP_SIDE):
        for left in range(0, column.shape[1], _REMAP_SIDE):
            part = (slice(top, top + _REMAP_SIDE), slice(left, left + _REMAP_SIDE))
            x, y = np.ascontiguousarray(column[part]), np.ascontiguousarray(row[part])
            found[part] = cv2.remap(rho, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found


@dataclass(frozen=True)
class Rays:
    """A point of depth t on a pixel's ray is a + t·b, each as maps of −x, y and −z in the head frame."""

    a: tuple[Map, Map, Map]
    b: tuple[Map, Map, Map]

    def at(self, t: Map | np.float32) -> tuple[Map, Map, Map]:
        """The points of depth t."""
        return self.a[0] + t * self.b[0], self.a[1] + t * self.b[1], self.a[2] + t * self.b[2]

    def only(self, index: tuple[slice, slice] | tuple[IntArray, IntArray]) -> Rays:
        """Some of the rays, as maps of two dimensions; maps (H, W)."""
        a, b = [m[index] for m in self.a], [m[index] for m in self.b]
        if a[0].ndim == 1:
            a, b = [m[None] for m in a], [m[None] for m in b]
        return Rays((a[0], a[1], a[2]), (b[0], b[1], b[2]))


def cast(rho: Map, pose: Pose, place: Map, shape: tuple[int, int]) -> Hit:
    """Find what each pixel of a picture of `shape` sees; `place` (2, 3) maps the picture plane to pixels."""
    back = np.linalg.inv(np.vstack([place, [0, 0, 1]]))
    pixel = float(np.sqrt(abs(np.linalg.det(back[:2, :2]))))
    rays = _rays(pose, back.astype(np.float32), shape)
    stride = int(np.clip(round(5.4 / pixel), 1, 6))  # the first look is at every 5 mm
    coarse = slice(stride // 2, None, stride)
    t, best = _first_meeting(rho, rays.only((coarse, coarse)))
    kernel = np.ones((3, 3), np.uint8)
    t = _enlarge(cv2.dilate(t, kernel), shape)
    near = _enlarge(cv2.erode(best, kernel), shape) < 2.0 + pixel
    gap = nearest = np.full(shape, np.float32(1e9))
    for k in range(4):
        gap, *_ = lookup(rho, *rays.at(t))
        nearest = np.minimum(nearest, gap)
        t = t - np.clip(np.float32(0.85 if k < 2 else 0.65) * gap, -4, 9)
    _settle(rho, rays, t, nearest, (gap > 0.6 * pixel) & near, np.float32(pixel))
    away, y, back_z = rays.at(t)
    gap, radius, column, row = lookup(rho, away, y, back_z)
    coverage = np.clip(1.6 - np.minimum(gap, nearest) / np.float32(pixel), 0, 1)
    radius = np.maximum(radius, 1e-3)
    return Hit(-away, y, -back_z, -away / radius, -back_z / radius, column, row, coverage)


def _rays(pose: Pose, back: Map, shape: tuple[int, int]) -> Rays:
    height, width = shape
    u, v = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    qx = back[0, 0] * u + back[0, 1] * v + back[0, 2]
    qy = back[1, 0] * u + back[1, 1] * v + back[1, 2]
    inverse = pose.rotation.T.astype(np.float32) * np.array([[-1], [1], [-1]], np.float32)
    a = [inverse[k, 0] * qx + inverse[k, 1] * qy for k in range(3)]
    b = [np.float32(-1 / pose.camera) * a[k] + inverse[k, 2] for k in range(3)]
    return Rays((a[0], a[1], a[2]), (b[0], b[1], b[2]))


def _enlarge(half: Map, shape: tuple[int, int]) -> Map:
    return np.asarray(cv2.resize(half, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST))


def _first_meeting(rho: Map, rays: Rays) -> tuple[Map, Map]:
    """March inwards: the depth of the surface, or where the ray passes it most closely; and the least gap."""
    depths = np.arange(_NEAR, _FAR, -_STEP, dtype=np.float32)
    gap = _gaps(rho, rays, np.broadcast_to(depths[:, None, None], (len(depths), *rays.a[0].shape)))
    behind = gap < 0
    first = np.where(behind.any(0), behind.argmax(0), gap.argmin(0))
    best = gap.min(0)
    found = depths[first] + np.where(best < 0, np.float32(0.5 * _STEP), np.float32(0))
    for _ in range(3):
        gap, *_ = lookup(rho, *rays.at(found))
        found -= np.clip(np.float32(0.8) * gap, -4, 4)
    return found, best


def _gaps(rho: Map, rays: Rays, t: Map) -> Map:
    """Heights above the surface for several depths of every ray at once, (K, H, W)."""
    flat = (-1, t.shape[-1])
    gap, *_ = lookup(rho, *(m.reshape(flat) for m in rays.at(t)))
    return gap.reshape(t.shape)


def _settle(rho: Map, rays: Rays, t: Map, nearest: Map, which: BoolArray, pixel: np.float32) -> None:
    """A few more steps for rays that meet the surface at a flat angle; `t` and `nearest` are changed."""
    rows, columns = np.nonzero(which)
    if not len(rows):
        return
    some = rays.only((rows, columns))
    depth, least = t[rows, columns][None], nearest[rows, columns][None]
    for _ in range(4):
        gap, *_ = lookup(rho, *some.at(depth))
        least = np.minimum(least, gap)
        depth = depth - np.clip(np.float32(0.7) * gap, -4, 9)
    gap, *_ = lookup(rho, *some.at(depth))
    t[rows, columns], nearest[rows, columns] = depth[0], np.minimum(least, gap)[0]
    lost = gap[0] > 0.6 * pixel
    _look_behind(rho, rays, t, nearest, rows[lost], columns[lost], pixel)


def _look_behind(
    rho: Map, rays: Rays, t: Map, nearest: Map, rows: IntArray, columns: IntArray, pixel: np.float32
) -> None:
    """Rays that graze an edge (nose, cheek, hair) go on to what lies behind it; `t` and `nearest` are changed."""
    if not len(rows):
        return
    some = rays.only((rows, columns))
    steps = np.arange(0, 27, dtype=np.float32)
    steps = (1.5 * steps + 0.09 * steps**2)[:, None, None]  # 0 to 101 mm, finer where the edge is
    depth = t[rows, columns][None, None] - steps
    gap = _gaps(rho, some, depth)
    inside = gap <= 0.3 * pixel
    met = inside.any(0)
    pick = np.where(met, inside.argmax(0), gap.argmin(0))[None]
    found = np.take_along_axis(depth, pick, 0)[0]
    for _ in range(4):
        height, *_ = lookup(rho, *some.at(found))
        found = np.where(met, found - np.clip(0.8 * height, -4, 4), found)
    t[rows, columns] = found[0]
    nearest[rows, columns] = np.where(met, 0, np.minimum(gap.min(0), nearest[rows, columns]))[0]


def shadow(rho: Map, hit: Hit, light: Map) -> Map:
    """How much of the key light reaches each pixel, 0–1, with soft borders; marched at half resolution."""
    away, y, back = -hit.x[::2, ::2], hit.y[::2, ::2], -hit.z[::2, ::2]
    far = np.array([5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 52.0, 70.0], np.float32)[:, None, None]
    path = (away - far * light[0], y + far * light[1], back - far * light[2])
    gap, *_ = lookup(rho, *(m.reshape(-1, y.shape[1]) for m in path))
    blocked = (gap.reshape(path[0].shape) * (-1 / (1.0 + 0.09 * far))).max(0)
    free = 1 - np.clip(blocked, 0, np.float32(0.88))
    free = cv2.GaussianBlur(free, (3, 3), 0.8)
    return cv2.resize(free, (hit.x.shape[1], hit.x.shape[0]), interpolation=cv2.INTER_LINEAR)


def shade(
    rho: Map,
    hit: Hit,
    pose: Pose,
    albedo: Map,
    conditions: Conditions,
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
    shine *= free * np.float32(conditions.gloss)
    out = sky[..., None] * conditions.ambient
    out += diffuse[..., None] * conditions.key
    out *= albedo
    out += shine[..., None] * conditions.key
    return out
