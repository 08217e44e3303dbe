"""Detect, choose, align, write: photographs become aligned crops, with an account of every picture."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.data.sources.base import Source
from visavis.data.sources.lists import Listing
from visavis.errors import DataError
from visavis.files import write_atomically
from visavis.processes import process_pool
from visavis.types import ByteArray, Detector, Faces
from visavis.vision import images
from visavis.vision.alignment import Antialias, Fit, Points, align, implausible
from visavis.vision.detection.detectors import choose, load_detector
from visavis.vision.detection.turns import Turn, detect_turned

MANIFEST = "manifest.jsonl"
_CHUNK = 8


@dataclass(frozen=True)
class PrepareSettings:
    """What makes the crops: their `size` (height, width), template, reduction, encoding, and how faces are found."""

    size: tuple[int, int] = (112, 112)
    template: str | Points = "arcface"
    padding: float = 0.0
    extension: str = ".jpg"
    quality: int = 95
    all_faces: bool = False
    detector: str = "mtcnn"
    detector_model: str | None = None
    min_face: int | None = None
    min_score: float = 0.0
    landmarks: bool = False  # taken from a list, nothing is detected
    antialias: Antialias = "box"
    turn: Turn = "auto"
    fit: Fit = "crop"


@dataclass(frozen=True)
class Account:
    """What became of one picture: its crops (relative to `images/`), the faces they show, or why there is none.

    `box` is x1, y1, x2, y2 and `landmarks` (5, 2), in pixels of the picture; `faces` counts all that were detected;
    `turned` is by how many degrees the picture must be turned clockwise to stand upright.
    """

    source: str
    outputs: tuple[str, ...] = ()
    box: tuple[tuple[float, ...], ...] = ()
    score: tuple[float, ...] = ()
    landmarks: tuple[tuple[tuple[float, ...], ...], ...] = ()
    faces: int = 0
    reject: str = ""
    turned: int = 0


class _Worker:
    """One process's detector; holds the source and writes crops."""

    def __init__(self, source: Source, target: Path, settings: PrepareSettings, listed: Mapping[str, Any]) -> None:
        from visavis.opencv import cv2

        cv2.setNumThreads(1)
        self.source, self.target, self.settings, self.listed = source, target, settings, listed
        self.detector: Detector | None = None
        if not settings.landmarks:
            self.detector = load_detector(
                settings.detector, settings.detector_model, threads=1, min_face=settings.min_face
            )

    def prepare(self, index: int) -> Account:
        name = self.source.names[index]
        if self.detector is None and name not in self.listed:
            return Account(name, reject="no landmarks in the list")
        try:
            image = self.source.image(index)
            if self.detector is None:
                points = np.asarray(self.listed[name])
                if reason := implausible(points, image.shape):
                    return Account(name, reject=reason)
                return self._write(name, image, [points], Account(name, faces=1))
            faces, turned = detect_turned(self.detector, image, turn=self.settings.turn)
            return replace(self._chosen(name, image, faces), turned=turned)
        except DataError as error:
            return Account(name, reject=str(error).removeprefix(f"{self.source.path}: {name}: "))

    def _chosen(self, name: str, image: ByteArray, faces: Faces) -> Account:
        if not len(faces):
            return Account(name, reject="no face found")
        good = np.flatnonzero(faces.scores >= self.settings.min_score)
        if not len(good):
            best = float(faces.scores.max())
            return Account(name, faces=len(faces), reject=f"best score {best:.3f} below {self.settings.min_score}")
        kept = Faces(faces.boxes[good], faces.scores[good], faces.landmarks[good])
        which = range(len(kept)) if self.settings.all_faces else [choose(kept, image.shape)]
        account = Account(
            name,
            box=tuple(tuple(np.round(kept.boxes[k], 2).tolist()) for k in which),
            score=tuple(round(float(kept.scores[k]), 4) for k in which),
            landmarks=tuple(tuple(map(tuple, np.round(kept.landmarks[k], 2).tolist())) for k in which),
            faces=len(faces),
        )
        return self._write(name, image, [kept.landmarks[k] for k in which], account)

    def _write(self, name: str, image: ByteArray, landmarks: list[npt.NDArray[Any]], account: Account) -> Account:
        options = self.settings
        stem = os.path.splitext(name)[0]
        outputs = []
        for k, points in enumerate(landmarks):
            crop = align(
                image,
                points,
                template=options.template,
                size=options.size,
                padding=options.padding,
                antialias=options.antialias,
                fit=options.fit,
            )
            relative = f"{stem}{f'_face{k}' if options.all_faces else ''}{options.extension}"
            data = images.encode(crop, options.extension, quality=options.quality)
            write_atomically(self.target / relative, data, durable=False)
            outputs.append(relative)
        return replace(account, outputs=tuple(outputs))


def _preparing(*arguments: Any) -> Callable[[int], Account]:
    return _Worker(*arguments).prepare


def prepare(
    source: Source,
    target: Path,
    settings: PrepareSettings,
    *,
    landmarks: Listing | None = None,
    workers: int = 1,
) -> Iterator[Account]:
    """Write aligned crops of a source's pictures to `target`/images and an account of each to `target`/manifest.jsonl.

    Yields the accounts in the source's order; those of an earlier, interrupted run come first and are not done again.
    The same names with another extension, one crop a picture (the face of `choose`), or `NAME_face0` ... with
    `all_faces`.

    Args:
        source: the photographs.
        target: folder to write to; made when missing.
        settings: size, template, detector.
        landmarks: a list with five points a picture, instead of detecting.
        workers: processes; 1 works in this one.

    Raises:
        DataError: `target` holds crops made with other settings, or two pictures would be written to one name.
    """
    settings = replace(settings, landmarks=landmarks is not None)
    listed: dict[str, Any] = {}
    if landmarks is not None:
        listed = {n: p.tolist() for n, p in zip(landmarks.names, landmarks.landmarks, strict=True) if p is not None}
    _check_names(source, settings)
    if not settings.landmarks:  # a model that cannot be loaded is said here, before anything is written
        load_detector(settings.detector, settings.detector_model, min_face=settings.min_face)
    target.mkdir(parents=True, exist_ok=True)
    done = _resume(target, settings)
    todo = [i for i, name in enumerate(source.names) if name not in done]
    arguments = (source, target / "images", settings, listed)
    with (target / MANIFEST).open("a", encoding="utf-8") as manifest:
        yield from (done[name] for name in source.names if name in done)
        try:
            with process_pool(_preparing, *arguments, workers=workers, advice="run again to go on") as pool:
                for account in pool.map(todo, chunk=_CHUNK):
                    manifest.write(json.dumps(asdict(account), ensure_ascii=False) + "\n")
                    manifest.flush()
                    yield account
        except OSError as error:  # the pictures' own faults are accounts; this is a full disk or no permission
            raise DataError(f"{target}: cannot write ({error.strerror}); run again to go on") from error


def _check_names(source: Source, settings: PrepareSettings) -> None:
    if settings.extension not in (".jpg", ".png", ".webp", ".bmp"):
        raise DataError(f"crops are written as .jpg, .png, .webp or .bmp, got {settings.extension!r}")
    stems: dict[str, str] = {}
    for name in source.names:
        other = stems.setdefault(os.path.splitext(name)[0], name)
        if other != name:
            raise DataError(f"{source.path}: {other!r} and {name!r} would be written to one name; rename one of them")


def read_manifest(path: Path) -> tuple[dict[str, Any], list[Account]]:
    """Read a manifest: the settings of its first line, and the accounts.

    Raises:
        DataError: not a manifest; the message names the line (a cut-off last line is left out).
    """
    accounts: list[Account] = []
    settings: dict[str, Any] = {}
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not a manifest (byte {error.start:,} is no UTF-8 text); delete it to start anew"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line or number == len(lines):
            continue
        try:
            values = json.loads(line)
            if number == 1:
                settings = dict(values["settings"])
            else:
                accounts.append(Account(**{key: _tupled(value) for key, value in values.items()}))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not a line of a manifest ({error})") from error
    return settings, accounts


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value


def _resume(target: Path, settings: PrepareSettings) -> dict[str, Account]:
    """The accounts of an earlier run with the same settings whose crops are still there."""
    path = target / MANIFEST
    ours = json.loads(json.dumps(asdict(settings)))
    done: dict[str, Account] = {}
    if path.is_file():
        theirs, accounts = read_manifest(path)
        # Manifests before these settings: plain bilinear, as the picture came.
        theirs = {"antialias": "none", "turn": "never", **theirs} if theirs else {}
        if theirs and theirs != ours:
            changed = sorted(key for key in ours if theirs.get(key) != ours[key])
            raise DataError(
                f"{path}: made with other settings ({', '.join(changed)}); choose another folder or delete it"
            )
        there = (a for a in accounts if all(_is_written(target / "images" / o) for o in a.outputs))
        done = {account.source: account for account in there}
    lines = [json.dumps({"settings": ours}), *(json.dumps(asdict(a), ensure_ascii=False) for a in done.values())]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return done


def _is_written(path: Path) -> bool:
    """Whether a crop is there; a power cut may leave its name without its bytes."""
    return path.is_file() and path.stat().st_size > 0


def copy_lists(source: Path, target: Path) -> list[str]:
    """Copy the lists beside a picture set (pairs.txt and the like) so that the crops can be evaluated at once.

    Lists of landmarks stay: their coordinates are the photographs', not the crops'.
    """
    copied = []
    folder = source if source.is_dir() else source.parent
    for path in sorted(folder.glob("*.txt")):
        if "landmark" not in path.name.lower() and not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
            copied.append(path.name)
    return copied


def landmark_line(account: Account, label: int) -> str:
    """A line of SphereFace's landmark list (row S1), `path TAB label TAB x1 y1 … x5 y5`; empty without landmarks."""
    if not account.landmarks:
        return ""
    points = "\t".join(f"{value:g}" for point in account.landmarks[0] for value in point)
    return f"{account.source}\t{label}\t{points}\n"
