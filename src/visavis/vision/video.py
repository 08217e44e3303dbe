"""Frames of a video file, all of them, or of a camera or network stream, the newest one whenever somebody asks."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision.image_formats import what_it_is
from visavis.vision.images import MAX_PIXELS

log = logging.getLogger(__name__)
EXTENSIONS = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".3gp"}
)
_ADDRESS = re.compile(r"(rtsps?|https?)://", re.IGNORECASE)
_SECONDS = 10  # a stream that gives nothing for so long has stopped
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a stream is opened again, doubled each time
_OPENING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Frame:
    """A uint8 (H, W, 3) RGB picture, its number from 0, and its time in seconds since the first."""

    image: ByteArray
    number: int
    time: float


def is_stream(text: str) -> bool:
    """Whether words name a camera by its number or a stream by its address."""
    return (text.isdecimal() and len(text) < 4) or _ADDRESS.match(text) is not None


def is_video_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file name ends as a video's does."""
    name: str = os.fspath(path)
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def shown(address: str) -> str:
    """An address without the name and password in it."""
    return re.sub(r"(?<=://)[^/@]*@", "", address)


def read_video(path: str | os.PathLike[str], *, every: int = 1) -> Iterator[Frame]:
    """The frames of a video file, `every`-th of them, turned as the camera was held.

    Raises:
        DataError: no video, or its frames have more pixels than a picture may have.
    """
    if not Path(path).is_file():
        raise DataError(f"{os.fspath(path)}: cannot read the video (no such file)")
    capture = open_capture(os.fspath(path))
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if 0 < rate < 1000 else 25.0
        number, time_of = -1, 0.0
        while capture.grab():
            number += 1
            said = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # a phone's frames do not come at one rate
            time_of = said if said > time_of else number / rate
            if number % every == 0:
                there, bgr = capture.retrieve()
                if not there:
                    break
                yield Frame(_rgb(bgr, os.fspath(path)), number, time_of)
        if number < 0:
            raise DataError(f"{os.fspath(path)}: the video has no frame that can be read")
    finally:
        capture.release()


def open_capture(address: str) -> Any:
    """OpenCV's capture of a file, a camera's number or an address.

    A playlist in a file reaches no network: FFmpeg lets a file lead to files alone.

    Raises:
        DataError: it cannot be opened.
    """
    camera, stream = address.isdecimal() and len(address) < 4, _ADDRESS.match(address) is not None
    options = "rtsp_transport;tcp" if stream else ""
    with _OPENING, _environment(OPENCV_FFMPEG_CAPTURE_OPTIONS=options, OPENCV_FFMPEG_LOGLEVEL="-8"):
        level = cv2.utils.logging.setLogLevel(0)
        try:
            if camera:
                capture = cv2.VideoCapture(int(address))
            else:
                limits = [
                    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                    _SECONDS * 1000,
                    cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                    _SECONDS * 1000,
                ]
                capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)
        except cv2.error as error:
            raise DataError(f"{shown(address)}: cannot open the video ({str(error)[:80]})") from error
        finally:
            cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise DataError(f"{shown(address)}: {_why_not(address, camera=camera, stream=stream)}")
    return capture


def _why_not(address: str, *, camera: bool, stream: bool) -> str:
    if camera:
        return "there is no such camera, or another program has it"
    if stream:
        return f"no stream could be opened within {_SECONDS} s; is the address right, and does the camera answer?"
    with Path(address).open("rb") as file:
        head = file.read(4096)
    if what_it_is(head).startswith("a video"):
        return "a video that cannot be decoded; is it damaged?"
    return f"expected a video, got {len(head)} bytes or more starting {head[:8].hex(' ')}"


@contextmanager
def _environment(**values: str) -> Generator[None]:
    """OpenCV takes these from the environment alone."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if value})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _rgb(bgr: Any, name: str) -> ByteArray:
    if bgr.shape[0] * bgr.shape[1] > MAX_PIXELS:
        raise DataError(f"{name}: frames of {bgr.shape[1]}×{bgr.shape[0]} exceed the limit of {MAX_PIXELS:,} pixels")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


@final
class LiveVideo:
    """The newest frame of a camera or stream, opened again when it stops; one frame is held, whatever comes.

    `dropped` counts the frames that came while nobody asked, `reconnects` how often it was opened again.
    """

    def __init__(
        self,
        address: str,
        *,
        open_with: Callable[[str], Any] = open_capture,
        pause: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
    ) -> None:
        """Open it.

        Raises:
            DataError: it cannot be opened now; later it is tried again and again.
        """
        self.address, self.dropped, self.reconnects, self.frames = address, 0, 0, 0
        self._open, self._pause, self._longest = open_with, pause, longest
        self._capture: Any = open_with(address)
        self._begun = time.monotonic()
        self._news, self._stop = threading.Condition(), threading.Event()
        self._newest: tuple[Any, int, float] | None = None
        self._thread = threading.Thread(target=self._read, name="visavis-video", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        """Frames until `close`."""
        while not self._stop.is_set():
            with self._news:
                while self._newest is None and not self._stop.is_set():
                    self._news.wait(0.5)  # Ctrl-C is seen between two waits
                newest, self._newest = self._newest, None
            if newest is not None:
                yield Frame(_rgb(newest[0], shown(self.address)), newest[1], newest[2])

    def close(self) -> None:
        """Let go of the camera."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        self._thread.join(_SECONDS + 5)

    def __enter__(self) -> LiveVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        pause = self._pause
        while not self._stop.is_set():
            came = self._read_until_it_stops()
            pause = self._pause if came else min(2 * pause, self._longest)
            while not self._stop.wait(pause):
                try:
                    self._capture = self._open(self.address)
                except DataError as error:
                    log.warning("%s; tried again in %.0f s", error, pause)
                    pause = min(2 * pause, self._longest)
                else:
                    self.reconnects += 1
                    log.warning("%s: opened again", shown(self.address))
                    break

    def _read_until_it_stops(self) -> bool:
        """Whether any frame came."""
        before = self.frames
        try:
            while not self._stop.is_set():
                there, bgr = self._capture.read()
                if not there:
                    if not self._stop.is_set():
                        log.warning("%s: the stream stopped; opened again soon", shown(self.address))
                    break
                with self._news:
                    self.dropped += self._newest is not None
                    self._newest = bgr, self.frames, time.monotonic() - self._begun
                    self.frames += 1
                    self._news.notify()
        finally:
            self._capture.release()
        return self.frames > before
