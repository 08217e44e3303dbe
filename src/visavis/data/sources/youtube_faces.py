"""YouTube Faces for DeepID: the center-half crop to 47 × 55, and lists for training, validation and testing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from visavis.data.sources.youtube_split import Clips, Split, SplitSettings, split
from visavis.data.text import natural_key
from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.opencv import cv2
from visavis.processes import process_pool
from visavis.types import ByteArray
from visavis.vision import images

DEEPID_SIZE = (55, 47)
_WRITTEN = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Prepared:
    """What was written: the split (without frames that could not be read), those frames with reasons, and counts."""

    split: Split
    unreadable: dict[str, str]
    frames: int
    skipped: int


def read_tree(source: Path) -> tuple[Path, dict[str, Clips], int]:
    """People, their clips and frames of a tree person/video/frame.jpg, in natural order; and what else lies there.

    `source` may be YouTube Faces itself, holding `aligned_images_DB`. Returns the tree's root, {person: {clip: frames}}
    and the number of files that are no frames.

    Raises:
        DataError: no folder, or no frame at that depth.
    """
    root = source / "aligned_images_DB" if (source / "aligned_images_DB").is_dir() else source
    if not root.is_dir():
        raise DataError(f"{source}: expected YouTube Faces' folder person/video/frame.jpg, got no folder")
    people: dict[str, Clips] = {}
    skipped = 0
    for person in _entries(root):
        clips: dict[str, list[str]] = {}
        for clip in _entries(Path(person.path)) if person.is_dir() else []:
            files = _entries(Path(clip.path)) if clip.is_dir() else []
            frames = [f"{person.name}/{clip.name}/{f.name}" for f in files if images.is_image_path(f.name)]
            skipped += len(files) - len(frames) + (not clip.is_dir())
            if frames:
                clips[clip.name] = frames
        skipped += not person.is_dir()
        if clips:
            people[person.name] = clips
    if not people:
        raise DataError(f"{root}: expected person/video/frame.jpg as in YouTube Faces' aligned_images_DB, found none")
    if any("\t" in name or "\n" in name for name in people):
        raise DataError(f"{root}: a person's folder has a TAB or a line break in its name, which no list can hold")
    return root, people, skipped


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: natural_key(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot list the folder ({error.strerror})") from error


def center_half(image: ByteArray, *, size: tuple[int, int] = DEEPID_SIZE, legacy: bool = False) -> ByteArray:
    """Cut the middle half of a picture (H, W, 3) and resize it to `size` = (height, width).

    `legacy` cuts (W/4, W/4) to (3W/4, 3W/4), taking the width for both axes as the reference does (row D2): right for
    square pictures only; what lies below the picture is black.
    """
    height, width = image.shape[:2]
    top, bottom = (width // 4, width * 3 // 4) if legacy else (height // 4, height * 3 // 4)
    part = image[top:bottom, width // 4 : width * 3 // 4]
    missing = bottom - top - part.shape[0]
    if missing > 0:
        part = cv2.copyMakeBorder(part, 0, missing, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    if not part.size:
        raise DataError(f"a picture of {height} × {width} has no middle half")
    return images.resize(np.ascontiguousarray(part, np.uint8), size)


def prepare_youtube_faces(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    seed: int = 7,
    legacy: bool = False,
    settings: SplitSettings | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Crop the frames that training, validation and test pairs need, and write the lists.

    Written to `dst`: images/person/video/frame.jpg (47 wide, 55 high); train.txt and valid.txt, `path TAB label`;
    people.txt, the people by label; pairs.txt, `path TAB path TAB 1|0`; test_people.txt; split.json. TABs separate, so
    that names may hold blanks and commas (row D4). A frame that cannot be read leaves the lists and is reported.

    Args:
        src: YouTube Faces, or its aligned_images_DB.
        dst: a new or empty folder, or one this function wrote.
        seed: of the split.
        legacy: crop and split as the reference does, see `center_half` and `visavis.data.sources.youtube_split.split`.
        settings: of the split, in place of `seed` and `legacy`'s defaults.
        workers: processes; 0 or 1 for none.
        progress: called with (frames done, frames in all).

    Raises:
        DataError: no such tree, too few frames, or a `dst` that holds something else.
    """
    src, dst = Path(src), Path(dst)
    settings = settings or SplitSettings(seed=seed, legacy=legacy)
    root, people, skipped = read_tree(src)
    if dst.resolve() == root.resolve():
        raise DataError(f"{dst}: SRC and DST are the same folder")
    if dst.is_dir() and any(dst.iterdir()) and not (dst / "split.json").is_file():
        raise DataError(f"{dst}: is not empty and no earlier result of this; choose a new folder")
    planned = split(people, settings)
    frames = planned.frames()
    unreadable: dict[str, str] = {}
    for done, (name, reason) in enumerate(_crop_all(root, dst, frames, settings.legacy, workers), 1):
        if reason:
            unreadable[name] = reason
        if progress is not None:
            progress(done, len(frames))
    if len(unreadable) == len(frames):
        raise DataError(f"{root}: not one frame could be read; the first: {next(iter(unreadable.values()))}")
    kept = _without(planned, unreadable)
    _write_lists(dst, kept, unreadable, settings)
    return Prepared(kept, unreadable, sum(len(f) for c in people.values() for f in c.values()), skipped)


def written_name(name: str) -> str:
    """Under which name a frame's crop is written: its own where the format can be, else with .jpg behind."""
    return name if name.lower().endswith(_WRITTEN) else name + ".jpg"


def _crop_all(root: Path, dst: Path, frames: list[str], legacy: bool, workers: int) -> Iterator[tuple[str, str]]:
    for folder in {str(Path(name).parent) for name in frames}:
        try:
            (dst / "images" / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{dst}: cannot write ({error.strerror})") from error
    tasks = [(root / name, dst / "images" / written_name(name), legacy) for name in frames]
    with process_pool(_cropping, workers=workers, advice="run again with --workers 1") as pool:
        yield from zip(frames, pool.map(tasks, chunk=64), strict=True)


def _cropping() -> Callable[[tuple[Path, Path, bool]], str]:
    return _crop_one


def _crop_one(task: tuple[Path, Path, bool]) -> str:
    """Crop one frame; returns why not, or nothing. A target that cannot be written is an error of its own."""
    source, target, legacy = task
    try:
        crop = center_half(images.read(source), legacy=legacy)
    except DataError as error:
        return str(error)
    try:
        images.write(target, crop, quality=97)
    except OSError as error:
        raise DataError(f"{target}: cannot write ({error.strerror})") from error
    return ""


def _without(planned: Split, unreadable: dict[str, str]) -> Split:
    """The split without some frames, under the names their crops have."""

    def good(rows: list[tuple[str, int]]) -> list[tuple[str, int]]:
        return [(written_name(name), label) for name, label in rows if name not in unreadable]

    pairs = [
        (written_name(a), written_name(b), same)
        for a, b, same in planned.pairs
        if a not in unreadable and b not in unreadable
    ]
    return Split(
        good(planned.train), good(planned.valid), pairs, planned.people, planned.test_people, planned.unused,
        planned.pairs_within_a_clip,
    )  # fmt: skip


def _write_lists(dst: Path, lists: Split, unreadable: dict[str, str], settings: SplitSettings) -> None:
    counts = {
        "people_trained": len(lists.people),
        "people_tested": len(lists.test_people),
        "train": len(lists.train),
        "valid": len(lists.valid),
        "pairs": len(lists.pairs),
        "genuine_pairs_within_a_clip": lists.pairs_within_a_clip,
    }
    about = {"settings": asdict(settings), **counts, "unused": lists.unused, "unreadable": unreadable}
    texts = {
        "train.txt": [f"{name}\t{label}" for name, label in lists.train],
        "valid.txt": [f"{name}\t{label}" for name, label in lists.valid],
        "people.txt": list(lists.people),
        "test_people.txt": list(lists.test_people),
        "pairs.txt": [f"{a}\t{b}\t{int(same)}" for a, b, same in lists.pairs],
        "split.json": [json.dumps(about, indent=2, ensure_ascii=False)],
    }
    for name, rows in texts.items():
        write_atomically(dst / name, "".join(row + "\n" for row in rows).encode())
