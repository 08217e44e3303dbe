"""The colors of a person that no expression moves: skin, freckles, moles, hair, beard."""

from __future__ import annotations

import numpy as np

from visavis.opencv import cv2
from visavis.synthetic.geometry import BOTTOM, COLUMNS, ROWS, TOP, FaceLayout, bump, grid
from visavis.synthetic.identity import Identity, Map, between, smoothstep
from visavis.types import ByteArray

SCALE = 1.25  # texels of the color map per texel of the shape map
SHAPE = (round(SCALE * (ROWS - 1)) + 1, round(SCALE * (COLUMNS - 1)) + 1)

_SKIN = np.array([[246, 214, 190], [228, 184, 152], [196, 144, 108], [146, 98, 68], [92, 60, 44]], np.float32)
_HAIR = np.array([[24, 19, 18], [66, 44, 30], [124, 86, 52], [188, 148, 92], [226, 200, 148]], np.float32)


def skin_color(person: Identity) -> Map:
    """RGB (3,), 0–255."""
    place = between(person.skin_tone, 0.0, 4.0)
    base = np.array([np.interp(place, range(5), _SKIN[:, c]) for c in range(3)], np.float32)
    red, yellow = 9 * person.skin_redness, 8 * person.skin_yellowness
    return base + np.array([0.35 * red, -red, -0.8 * red - yellow], np.float32)


def hair_color(person: Identity) -> Map:
    """RGB (3,), 0–255: black to blond, ash to red, with gray mixed in above a third of the range."""
    place = between(person.hair_lightness, 0.0, 4.0)
    base = np.array([np.interp(place, range(5), _HAIR[:, c]) for c in range(3)], np.float32)
    warm = np.array([26.0, -4.0, -22.0], np.float32) * np.float32(person.hair_warmth)
    base = base + warm * np.float32(min(1.0, 0.3 + place / 2))
    gray = max(0.0, (person.hair_gray - 0.35) / 0.65) ** 0.7
    return base * np.float32(1 - gray) + np.float32(188 * gray) * np.array([1.0, 0.99, 0.97], np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, int], rows: float, columns: float) -> Map:
    """Smooth noise of unit spread over `shape` whose grains are about `rows` × `columns` texels."""
    small = (max(2, int(shape[0] / rows)), max(2, int(shape[1] / columns)))
    grain = rng.standard_normal(small, dtype=np.float32)
    return cv2.resize(grain, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _ramp(value: float, low: float, high: float) -> float:
    """`smoothstep` of one number."""
    return float(smoothstep(np.array([value], np.float32), low, high)[0])


def hair_mask(person: Identity, places: FaceLayout, y: Map, theta: Map, edge: Map) -> Map:
    """How much hair covers the head, 0–1; `edge` roughens its border, in millimeters."""
    amount = _ramp(person.hair_amount, -0.95, -0.75)
    angle = np.abs(theta)
    line = places.hairline_y - between(person.hairline_recession, -6.0, 24.0) * bump(
        angle, 0 * y, (0.62, 0.0), 0.2, 1.0
    )
    # A fringe hangs over the forehead, more on one side of the parting.
    fringe = max(0.0, person.fringe) * _ramp(person.hair_length, -0.7, 0.0)
    part = np.float32(0.5 * person.parting)
    lean = 0.65 + 0.35 * np.tanh((theta - part) * np.float32(4.0 * np.sign(person.parting)))
    line = line + np.float32(fringe) * lean * (-13.0 - places.hairline_y) * (1 - smoothstep(angle, 0.55, 1.0))
    # At the temples the line turns down to the sideburns; behind the ears hair falls as long as it is.
    temple = smoothstep(angle, 0.86, 1.08)
    line = line + temple * (14.0 - line)
    length = between(person.hair_length, -0.8, 1.0)
    fall = 60.0 + 125.0 * max(0.0, length)
    inner = 1.84 if length < 0.05 else 1.30 - 0.28 * length
    behind = smoothstep(angle, inner - 0.06, inner + 0.14)
    line = line + behind * (fall - line)
    return (amount * smoothstep(line + edge - y, -2.5, 2.5)).astype(np.float32)


def hair_relief(person: Identity, places: FaceLayout) -> Map:
    """By how many millimeters hair raises the surface."""
    y, theta = grid()
    rng = np.random.default_rng(person.marks + 1)
    edge = 3.0 * noise(rng, (ROWS, COLUMNS), 12, 6)
    mask = hair_mask(person, places, y, theta, edge)
    volume = between(person.hair_volume, 2.0, 20.0) * _ramp(person.hair_length, -1.4, -0.2)
    curl = max(0.0, person.hair_curl)
    grain = noise(rng, (ROWS, COLUMNS), 26 - 20 * curl, 5.0)
    high = 1.5 + volume * (0.75 + 0.25 * smoothstep(-y, -40.0, 60.0)) + (0.7 + 1.6 * curl) * grain
    long = _ramp(person.hair_length, -0.1, 0.6) * smoothstep(y, 20.0, 90.0)
    soft = cv2.GaussianBlur(mask, (0, 0), 2.0)  # a wall of one texel would be met at random
    relief = soft * (high + 16.0 * long)
    return relief * smoothstep(y, -119.0, -100.0)  # closes over the crown


def base_colors(person: Identity, places: FaceLayout, rho: Map) -> ByteArray:
    """The color map (H, W, 3) over `grid(*SHAPE)`, without brows, eyes, lips and clothes."""
    y, theta = grid(*SHAPE)
    rng = np.random.default_rng(person.marks)
    wide = cv2.resize(rho, (SHAPE[1], SHAPE[0]), interpolation=cv2.INTER_LINEAR)
    x = wide * np.sin(theta)
    side = np.abs(x)
    skin = skin_color(person)
    mottled = 1 + 0.018 * noise(rng, SHAPE, 10, 10) + 0.014 * noise(rng, SHAPE, 3, 3)
    flush = 0.6 * bump(side, y, (44.0, places.nose_y - 4), 17.0, 15.0) + 0.7 * bump(x, y, (0, places.nose_y), 12.0, 9.0)
    flush += 0.5 * bump(side, y, (76.0, 15.0), 8.0, 20.0)
    flush *= np.float32(between(person.skin_redness, 0.3, 1.6))
    bags = between(person.eye_bags, 0.0, 0.32) * bump(side, y, (places.eye_x - 3, 11.0), 10.0, 4.0)
    shade = (1 - bags) * _wrinkles(person, places, side, y)
    mole_map = _moles(person, np.random.default_rng(person.marks + 2), x, y)
    freckle = _freckles(person, places, rng, side, y)
    image = np.empty((*SHAPE, 3), np.float32)
    beard = _beard(person, places, rng, x, side, y)
    hair = hair_color(person)
    edge = 3.0 * cv2.resize(
        noise(np.random.default_rng(person.marks + 1), (ROWS, COLUMNS), 12, 6), (SHAPE[1], SHAPE[0])
    )
    cover = hair_mask(person, places, y, theta, edge)
    curl = max(0.0, person.hair_curl)
    strands = 1 + 0.16 * noise(rng, SHAPE, 46 - 38 * curl, 2.6) + 0.10 * noise(rng, SHAPE, 10, 2)
    strands = np.clip(strands, 0.45, 1.7)
    for c, redden in enumerate((0.02, -0.11, -0.10)):
        value = skin[c] * mottled * shade * (1 + redden * flush)
        value = value * (1 - freckle * (0.16, 0.26, 0.32)[c]) * (1 - mole_map * (0.55, 0.68, 0.72)[c])
        value = value * (1 - beard) + hair[c] * 0.8 * beard
        image[..., c] = value * (1 - cover) + hair[c] * strands * cover
    hollow = np.clip((rho - cv2.GaussianBlur(rho, (0, 0), 7.0)) * 0.035, -0.28, 0.06)
    image *= cv2.resize(1 + hollow, (SHAPE[1], SHAPE[0]))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _wrinkles(person: Identity, places: FaceLayout, side: Map, y: Map) -> Map:
    """Folds from nose to mouth and lines on the forehead, as a factor of brightness."""
    strength = between(person.wrinkles, 0.0, 0.30)
    run = (y - places.nose_y) / (places.mouth_y - places.nose_y + 6)
    fold = places.nose_width + 7 + 12 * np.clip(run, 0, 1.2)
    shade = 0.8 * np.exp(-(((side - fold) / 2.2) ** 2)) * smoothstep(run, -0.1, 0.25) * (1 - smoothstep(run, 0.9, 1.2))
    for k in range(3):
        shade = shade + 0.55 * np.exp(-(((y - places.brow_y + 14 + 10 * k + 0.05 * side) / 1.3) ** 2)) * (side < 38)
    feet = (
        np.exp(-(((y - 2 - 0.0 * side) / 5.0) ** 2))
        * np.abs(np.sin(y * 0.9))
        * bump(side, y, (places.eye_x + 22, 2), 5, 6)
    )
    return 1 - np.float32(strength) * np.clip(shade + 0.6 * feet, 0, 1)


def _moles(person: Identity, rng: np.random.Generator, x: Map, y: Map) -> Map:
    """Up to nine dark spots, anywhere on the visible face."""
    count = round(between(person.moles, 0.0, 7.0))
    spots = np.zeros(x.shape, np.float32)
    places = rng.uniform((-58, -55, 0.9), (58, 95, 2.2), (9, 3))
    dark = rng.uniform(0.5, 1.0, 9)
    for (px, py, size), depth in zip(places[:count], dark, strict=False):
        low, high = (round((py + o - TOP) / (BOTTOM - TOP) * (x.shape[0] - 1)) for o in (-8, 8))
        rows = slice(max(low, 0), high)
        hill = bump(x[rows], y[rows], (px, py), size, size) * np.float32(1.6 * depth)
        np.maximum(spots[rows], np.minimum(hill, np.float32(depth)), out=spots[rows])
    return spots


def _freckles(person: Identity, places: FaceLayout, rng: np.random.Generator, side: Map, y: Map) -> Map:
    """Small spots over cheeks and nose."""
    amount = max(0.0, person.freckles - 0.1) / 0.9
    grain = noise(rng, side.shape, 3.2, 3.2)
    where = bump(side, y, (26.0, 0.62 * places.nose_y), 26.0, 17.0) + 0.4 * bump(side, y, (0.0, -40.0), 40.0, 20.0)
    return smoothstep(grain, 0.6, 1.5) * where * np.float32(1.5 * amount)


def _beard(person: Identity, places: FaceLayout, rng: np.random.Generator, x: Map, side: Map, y: Map) -> Map:
    """Beard and moustache as opacity: none for half of the people, then stubble, then full."""
    mouth = places.mouth_y
    growth = max(0.0, person.beard) ** 0.6
    upper = mouth - 6 + 26 * bump(side, 0 * y, (0, 0), 30.0, 1.0) * (0.5 if person.beard_shape > 0 else 1.2)
    upper = upper - 30.0 * smoothstep(side, 48.0, 70.0)
    jaw = smoothstep(y - upper, -4.0, 6.0) * (1 - smoothstep(y, places.chin_y + 12, places.chin_y + 30))
    if person.beard_shape < -0.4:  # a goatee
        jaw = jaw * (1 - smoothstep(side, 20.0, 27.0))
    lips = bump(x, y, (0, mouth), places.mouth_half_width * 0.8, 6.5)
    beard = np.float32(growth) * jaw * (1 - np.clip(1.6 * lips, 0, 1))
    above = mouth - 9.5
    tash = bump(side, y, (places.mouth_half_width * 0.45, above), places.mouth_half_width * 0.5, 3.4)
    tash = np.clip(1.8 * tash, 0, 1) * np.float32(max(0.0, person.moustache) ** 0.6)
    grain = np.clip(0.82 + 0.22 * noise(rng, x.shape, 5, 2.2), 0.2, 1.0)
    return np.clip(np.maximum(beard, tash) * grain, 0, 0.92)
