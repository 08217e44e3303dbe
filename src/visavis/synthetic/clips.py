"""Generated clips in YouTube Faces' layout: one person, one light, one thing worn, and a head that moves smoothly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.processes import process_pool
from visavis.synthetic import camera
from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.identity import Map
from visavis.synthetic.render import check_request, head, prepare, render
from visavis.types import ByteArray
from visavis.vision import images
from visavis.vision.alignment import estimate_similarity, template_points

_CLIPS, _COUNT = 3, 4  # streams besides people, pictures and scenes
_RATE = 25.0  # frames a second
_CLIP_SHARES = (0.35, 0.30, 0.20, 0.15)  # of people with 1, 2, 3, 4 clips: 2.15 a person, as in YouTube Faces (row D1)


def clip(
    seed: int, identity: int, number: int, frames: int, *, size: int = 160, difficulty: float = 1.0
) -> tuple[ByteArray, npt.NDArray[np.float64]]:
    """Clip `number` of a person, uint8 (F, size, size, 3) RGB with the face in the middle half; landmarks (F, 5, 2)."""
    check_request(seed, min(identity, number), 0, size, difficulty)
    if not 1 <= frames <= 10_000:
        raise DataError(f"a clip has 1 to 10,000 frames, got {frames}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, identity, _CLIPS, number])))
    start, who = sample_conditions(rng, difficulty), head(seed, identity)
    backdrop = camera.background(rng, (size, size))
    target = template_points("arcface", (size // 2, size // 2)) + size // 4
    shown, points = np.empty((frames, size, size, 3), np.uint8), np.empty((frames, 5, 2))
    for k, conditions in enumerate(moving_conditions(rng, start, frames, difficulty)):
        rho, colors, pose, flat = prepare(who, conditions)
        place = estimate_similarity(flat + conditions.jitter / 0.56, target)
        lit = render(who, conditions, rho, colors, pose, place, backdrop.copy())
        shown[k] = camera.develop(lit, conditions, rng, size / 224)
        points[k] = flat @ place[:, :2].T + place[:, 2]
    return shown, points


def moving_conditions(
    rng: np.random.Generator, start: Conditions, frames: int, difficulty: float
) -> Iterator[Conditions]:
    """The conditions of each frame: what a camera and a room keep stays, what a head does drifts."""
    d = min(difficulty, 2.0)
    yaw, pitch, roll = (np.deg2rad(a * d) * _drift(rng, frames) for a in (12.0, 6.0, 4.0))
    smile, mouth, brow, left, down = (a * d * _drift(rng, frames) for a in (0.3, 0.35, 0.3, 0.4, 0.25))
    jitter = np.stack([_drift(rng, frames) for _ in range(10)], 1).reshape(frames, 5, 2) * 0.5 * d
    opening = np.ones(frames)
    for blink in np.flatnonzero(rng.random(frames) < 0.3 / _RATE):  # every three seconds or so
        opening[blink : blink + 4] = np.array([0.5, 0.1, 0.3, 0.7])[: frames - blink]
    limit = np.deg2rad(40.0)
    for k in range(frames):
        yield replace(
            start,
            yaw=float(np.clip(start.yaw + yaw[k], -limit, limit)),
            pitch=float(np.clip(start.pitch + pitch[k], -limit / 2, limit / 2)),
            roll=float(start.roll + roll[k]),
            smile=float(np.clip(start.smile + smile[k], -0.6, 1)),
            mouth_open=float(np.clip(start.mouth_open + mouth[k], 0, 1)),
            brow_raise=float(np.clip(start.brow_raise + brow[k], -1, 1)),
            gaze=(float(np.clip(start.gaze[0] + left[k], -1, 1)), float(np.clip(start.gaze[1] + down[k], -1, 1))),
            eye_opening=float(max(0.12, start.eye_opening * opening[k])),
            jitter=start.jitter * 0.5 + jitter[k],
        )


def _drift(rng: np.random.Generator, frames: int) -> Map:
    """A smooth curve of unit size that starts at 0: three slow sines."""
    time = np.arange(frames) / _RATE
    speed, phase = rng.uniform(0.1, 0.9, 3), rng.uniform(0, 2 * np.pi, 3)
    curve = np.sin(2 * np.pi * speed * time[:, None] + phase).sum(1) / 1.5
    return curve - curve[0]


def clip_count(seed: int, identity: int) -> int:
    """How many clips a person has, 1 to 4."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, identity, _COUNT])))
    return 1 + int(rng.choice(len(_CLIP_SHARES), p=_CLIP_SHARES))


def write_clips(
    out: Path, seed: int, identities: range, frames: int, *, size: int = 160, difficulty: float = 1.0, workers: int = 0
) -> Iterator[int]:
    """Write out/aligned_images_DB/id_000000/0/0.1.jpg …; yields the number of frames after each person."""
    check_request(seed, identities[0], 0, size, difficulty)
    tasks = [(out, seed, identity, frames, size, difficulty) for identity in identities]
    with process_pool(_writing, workers=min(workers, len(tasks))) as pool:
        yield from pool.map(tasks)


def _writing() -> Callable[[tuple[Path, int, int, int, int, float]], int]:
    return _write_person


def _write_person(task: tuple[Path, int, int, int, int, float]) -> int:
    out, seed, identity, frames, size, difficulty = task
    count = clip_count(seed, identity)
    for number in range(count):
        folder = out / "aligned_images_DB" / f"id_{identity:06d}" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        shown, _ = clip(seed, identity, number, frames, size=size, difficulty=difficulty)
        for k, frame in enumerate(shown, 1):
            images.write(folder / f"{number}.{k}.jpg", frame, quality=92)
    return count * frames
