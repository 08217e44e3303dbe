"""Who the people of a video are: a search for each track's template, and its best crop kept within bounds."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import final

from visavis.deploy.gallery.base import GalleryBase
from visavis.deploy.gallery.records import Identification
from visavis.deploy.operating_point import DecisionThreshold
from visavis.deploy.tracking import Track
from visavis.files import write_atomically
from visavis.vision.images import encode

_OURS = re.compile(r".*-track\d+-\d+\.jpg")


def identify_track(
    track: Track, gallery: GalleryBase, point: DecisionThreshold | None, *, top: int = 5
) -> Identification:
    """Who a track is, by its template."""
    return gallery.identify(
        track.template,
        threshold=None if point is None else point.threshold,
        fmr=None if point is None else point.fmr,
        fmr_interval=None if point is None else point.fmr_interval,
        top=top,
    )[0]


@final
class CropFolder:
    """The best crops of tracks, as files; the newest `most` are kept, whoever else's files stay."""

    def __init__(self, folder: str | os.PathLike[str], most: int) -> None:
        self.folder, self.most = Path(folder), most
        self.folder.mkdir(parents=True, exist_ok=True)
        own = [entry for entry in os.scandir(self.folder) if _OURS.fullmatch(entry.name)]
        self._names = [entry.name for entry in sorted(own, key=lambda entry: (entry.stat().st_mtime_ns, entry.name))]

    def keep(self, source: str, track: Track) -> str:
        """Write a track's best crop; returns its path."""
        stem = re.sub(r"[^\w.-]", "_", os.path.basename(source))[:60] or "camera"
        name = f"{stem}-track{track.number}-{round(1000 * track.best_time)}.jpg"
        write_atomically(self.folder / name, encode(track.best.crop, ".jpg"), durable=False)
        if name in self._names:
            self._names.remove(name)
        self._names.append(name)
        while len(self._names) > self.most:
            (self.folder / self._names.pop(0)).unlink(missing_ok=True)
        return str(self.folder / name)
