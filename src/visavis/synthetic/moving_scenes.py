"""Videos with known tracks: two generated people before one camera; one leaves, comes back, passes behind the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.opencv import cv2
from visavis.synthetic import camera
from visavis.synthetic.clips import moving_conditions
from visavis.synthetic.conditions import Conditions, sample_conditions
from visavis.synthetic.identity import Map
from visavis.synthetic.render import head
from visavis.synthetic.scenes import add_person, mild, under_same_light
from visavis.types import ByteArray

RATE = 25.0
_VIDEOS = 5  # a stream besides people, pictures, scenes and clips
_STAYS = (((0.0, 1.0),), ((0.1, 0.42), (0.62, 1.0)))  # shares of the video, of each of the two people
COLUMNS = ("video", "frame", "track", "identity", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, eq=False)
class MovingScene:
    """A frame, uint8 (H, W, 3) RGB, and whose faces are in it: tracks and identities (F,), boxes (F, 4)."""

    image: ByteArray
    tracks: npt.NDArray[np.int64]
    identities: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]


def moving_scene(
    seed: int,
    number: int,
    identities: tuple[int, ...],
    frames: int,
    *,
    size: tuple[int, int] = (480, 640),
    difficulty: float = 0.5,
) -> Iterator[MovingScene]:
    """The frames of video `number`, 25 a second: the first person stays, a second leaves and comes back.

    A track is one stay: of two people there are three. In the last the second person passes behind the first.

    Raises:
        DataError: not 1 or 2 people, fewer than 10 frames, or a frame too small for faces.
    """
    if not 1 <= len(identities) <= 2 or frames < 10 or min(size) < 240:
        raise DataError(f"a video wants 1 or 2 people, 10 frames and 240 pixels, got {identities}, {frames} and {size}")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, _VIDEOS, 0])))
    common = sample_conditions(rng, difficulty)
    backdrop = camera.background(rng, size)
    people = [_Walker(rng, seed, who, k, frames, size, common, difficulty) for k, who in enumerate(identities)]
    for frame in range(frames):
        lit = backdrop.copy()
        rows = [row for person in sorted(people, key=lambda p: p.scale) if (row := person.draw(lit, frame))]
        image = camera.develop(lit, mild(common), rng, 1.0)
        yield MovingScene(
            image,
            np.array([row[0] for row in rows], np.int64),
            np.array([row[1] for row in rows], np.int64),
            np.array([row[2] for row in rows]).reshape(-1, 4),
        )


class _Walker:
    """One person's way through a video."""

    def __init__(
        self,
        rng: np.random.Generator,
        seed: int,
        identity: int,
        place: int,
        frames: int,
        size: tuple[int, int],
        common: Conditions,
        difficulty: float,
    ) -> None:
        self.identity, self.person, self.width, self.frames = identity, head(seed, identity), size[1], frames
        start = replace(sample_conditions(rng, difficulty), yaw=0.0)
        self.conditions = [
            under_same_light(conditions, common) for conditions in moving_conditions(rng, start, frames, difficulty)
        ]
        self.scale = min(size) / 480 * (0.68, 0.52)[place]
        self.stays = [(round(a * frames), round(b * frames)) for a, b in _STAYS[place]]
        self.first_track = (0, 1)[place]
        time = np.arange(frames) / RATE
        sway = 0.04 * np.sin(2 * np.pi * rng.uniform(0.15, 0.25) * time)
        self.x = self.width * ((0.42, 0.78)[place] + sway)
        if place:  # comes back and walks past behind the other
            begin, end = self.stays[1]
            self.x[begin:] = self.width * (0.85 - 0.7 * np.clip(np.arange(frames - begin) / (end - begin), 0, 1))
        self.y = size[0] * (0.5 + 0.02 * np.sin(2 * np.pi * 0.3 * time + place))

    def draw(self, lit: Map, frame: int) -> tuple[int, int, Map] | None:
        """Draw the person into a frame; track, identity and box, None when away."""
        for k, (begin, end) in enumerate(self.stays):
            if begin <= frame < end:
                center = np.array([self.x[frame], self.y[frame]])
                box, _ = add_person(lit, self.person, self.conditions[frame], self.scale, center)
                return self.first_track + k, self.identity, box
        return None


def write_videos(
    out: Path,
    seed: int,
    identities: range,
    frames: int,
    *,
    size: tuple[int, int] = (480, 640),
    difficulty: float = 0.5,
) -> Iterator[int]:
    """Write out/videos/video_000000.avi (Motion JPEG) ... of two people each, and out/tracks.tsv; yields videos done.

    Raises:
        DataError: see `moving_scene`; OpenCV cannot write the file.
    """
    (out / "videos").mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(COLUMNS)]
    for number, at in enumerate(range(0, len(identities), 2)):
        name = f"video_{number:06d}.avi"
        writer = cv2.VideoWriter(str(out / "videos" / name), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (size[1], size[0]))
        if not writer.isOpened():
            raise DataError(f"{out / 'videos' / name}: cannot write the video")
        try:
            shown = moving_scene(seed, number, tuple(identities[at : at + 2]), frames, size=size, difficulty=difficulty)
            for frame, scene in enumerate(shown):
                writer.write(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
                for track, identity, box in zip(scene.tracks, scene.identities, scene.boxes, strict=True):
                    values = [name, str(frame), str(track), f"id_{identity:06d}", *(f"{v:.2f}" for v in box)]
                    lines.append("\t".join(values))
        finally:
            writer.release()
        yield number + 1
    write_atomically(out / "tracks.tsv", ("\n".join(lines) + "\n").encode())
