"""Generated faces on disk: a folder per identity, with landmarks, pairs and a note of what made them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.synthetic.identity import Map
from visavis.synthetic.parallel import Advance, image_name, people
from visavis.synthetic.scenes import scene
from visavis.types import ByteArray, Pairs
from visavis.vision.images import resize, write

MARKER = "synthetic.json"
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
SCENE_COLUMNS = ("image", "identity", "x1", "y1", "x2", "y2", *(f"{p}_{axis}" for p in _POINTS for axis in "xy"))


def claim(out: Path, made_by: dict[str, object]) -> None:
    """Make `out` ready to be filled: new, empty, or one that an earlier call made (then its old pictures go).

    Raises:
        DataError: a file, or a folder holding what this did not make.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: expected a folder to write to, got a file")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise DataError(f"{out}: is not empty and not of this command's making; choose a new folder or empty it")
        for name in _own_files(out):
            name.unlink()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).write_text(json.dumps(made_by, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out}: cannot write ({error.strerror})") from error


def _own_files(out: Path) -> list[Path]:
    """What an earlier call wrote, and nothing else."""
    images = [*out.glob("images/id_*/*.jpg"), *out.glob("images/scene_*.jpg")]
    images += out.glob("aligned_images_DB/id_*/*/*.jpg")
    images += out.glob("videos/video_*.avi")
    return [
        *images,
        *(p for n in ("pairs.txt", "landmarks.txt", "scenes.tsv", "tracks.tsv") if (p := out / n).is_file()),
    ]


def write_people(
    out: Path,
    seed: int,
    identities: Sequence[int],
    images_per_identity: int,
    *,
    size: int = 112,
    difficulty: float = 1.0,
    workers: int = 0,
    progress: Advance | None = None,
) -> int:
    """Write `out`/images/id_000000/000.jpg … and `out`/landmarks.txt; returns the number of pictures.

    A line of landmarks.txt is TAB-separated: path below images/, then x1 y1 … x5 y5 in pixels (reference-systems S1).
    """
    done, total = 0, len(identities) * images_per_identity
    with (out / "landmarks.txt").open("w", encoding="utf-8") as table:
        drawn = people(seed, identities, images_per_identity, size=size, difficulty=difficulty, workers=workers)
        for identity, (crops, landmarks) in zip(identities, drawn, strict=True):
            (out / "images" / image_name(identity, 0)).parent.mkdir(parents=True, exist_ok=True)
            for k, (crop, points) in enumerate(zip(crops, landmarks, strict=True)):
                name = image_name(identity, k)
                write(out / "images" / name, crop, quality=92)
                table.write("\t".join([name, *(f"{v:.2f}" for v in points.ravel())]) + "\n")
            done += images_per_identity
            if progress is not None:
                progress(done, total)
    return done


def write_pairs(path: Path, protocol: Pairs) -> None:
    """Write a protocol whose folds are of one size: a line `folds size`, then lines `path path 1` and `path path 0`."""
    folds = int(protocol.fold.max()) + 1
    lines = [f"{folds}\t{len(protocol) // (2 * folds)}"]
    for a, b, same in zip(protocol.reference, protocol.probe, protocol.genuine, strict=True):
        lines.append(f"{protocol.images[a]}\t{protocol.images[b]}\t{int(same)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_scenes(
    out: Path,
    seed: int,
    identities: range,
    scenes: int,
    *,
    difficulty: float = 1.0,
    progress: Advance | None = None,
) -> int:
    """Write `out`/images/scene_000000.jpg … and `out`/scenes.tsv, a line per face under a line of `SCENE_COLUMNS`.

    Coordinates are pixels, (0, 0) the center of the first; returns the number of faces.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    faces = 0
    with (out / "scenes.tsv").open("w", encoding="utf-8") as table:
        table.write("\t".join(SCENE_COLUMNS) + "\n")
        for number in range(scenes):
            shown = scene(seed, number, identities, difficulty=difficulty)
            name = f"scene_{number:06d}.jpg"
            write(out / "images" / name, shown.image, quality=92)
            for identity, box, points in zip(shown.identities, shown.boxes, shown.landmarks, strict=True):
                values = [f"{v:.2f}" for v in (*box, *points.ravel())]
                table.write("\t".join([name, f"id_{identity:06d}", *values]) + "\n")
                faces += 1
            if progress is not None:
                progress(number + 1, scenes)
    return faces


def contact_sheet(rows: Sequence[Sequence[ByteArray]], *, cell: int = 96, gap: int = 4) -> ByteArray:
    """Pictures side by side, a row per person, on white; each (H, W, 3)."""
    height = len(rows) * (cell + gap) + gap
    sheet = np.full((height, max(map(len, rows)) * (cell + gap) + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            y, x = gap + r * (cell + gap), gap + c * (cell + gap)
            sheet[y : y + cell, x : x + cell] = resize(image, (cell, cell))
    return sheet


def outline_faces(image: ByteArray, boxes: Map, landmarks: Map) -> ByteArray:
    """A copy of a picture with its boxes and landmarks drawn in; (H, W, 3)."""
    shown = image.copy()
    for box, points in zip(boxes, landmarks, strict=True):
        corners = [round(float(v)) for v in box]
        cv2.rectangle(shown, corners[:2], corners[2:], (40, 220, 60), 1)
        for x, y in points:
            cv2.circle(shown, (round(float(x)), round(float(y))), 2, (240, 40, 40), -1)
    return shown
