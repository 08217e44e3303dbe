"""Faces followed over the frames of a video: by overlap from frame to frame, by embedding across gaps and crossings.

One track is one person's stay before the camera. Its template is the quality-weighted mean of embeddings taken now and
then; its best crop is the one of the highest quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt

from visavis.deploy.face import Face
from visavis.deploy.recognizer import Recognizer
from visavis.vision.detection.detectors import overlaps
from visavis.vision.video import Frame

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TrackingSettings:
    """How faces are followed.

    Args:
        overlap: intersection over union from which a face is taken for the one of the frame before.
        threshold: similarity from which a face is taken for one seen before; the model's calibrated one.
        gap: seconds, and `absent` frames, a face may be away before its track ends; on a slow machine frames are far
            between.
        sample: seconds between two embeddings of one track; a face of better quality than any before is embedded too.
        least: frames a track must have been seen in; fewer are taken for a detector's mistake.
        most: faces of a frame that are followed, the largest first.
    """

    overlap: float = 0.3
    threshold: float = 0.35
    gap: float = 1.0
    absent: int = 2
    sample: float = 0.4
    least: int = 3
    most: int = 64


@dataclass(eq=False)
class Track:
    """A person's stay: first and last time in seconds, frames seen in, template (unit, D), best face and its time.

    `absent` counts the frames since it was seen; `box` is the last one; `history` holds all as (frame, box) where the
    tracker was asked to keep them.
    """

    number: int
    start: float
    end: float
    best: Face
    best_time: float
    box: npt.NDArray[np.float32]
    frames: int = 1
    samples: int = 0
    absent: int = 0
    history: list[tuple[int, npt.NDArray[np.float32]]] = field(default_factory=list)
    _sum: npt.NDArray[np.float64] | float = 0.0
    _sampled: float = -np.inf

    @property
    def template(self) -> Vector:
        """The quality-weighted mean of the embeddings, of length 1."""
        total = np.asarray(self._sum, np.float64)
        return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)

    def add(self, embedding: Vector, quality: float, time: float) -> None:
        """Add an embedding to the template."""
        self._sum = self._sum + quality * embedding.astype(np.float64)
        self.samples, self._sampled = self.samples + 1, time

    def wants(self, quality: float, time: float, every: float) -> bool:
        """Whether the template would gain by an embedding now."""
        return self.samples == 0 or time - self._sampled >= every or quality > 1.1 * self.best.quality.score


@final
class FaceTracker:
    """Follows faces frame by frame; `update` returns the tracks that have ended."""

    def __init__(
        self, recognizer: Recognizer, settings: TrackingSettings | None = None, *, keep_boxes: bool = False
    ) -> None:
        self.recognizer, self.settings, self.keep_boxes = recognizer, settings or TrackingSettings(), keep_boxes
        self.active: list[Track] = []
        self.dropped = 0  # tracks of fewer frames than `least`
        self._count = 0

    def update(self, frame: Frame) -> list[Track]:
        """Take in the next frame."""
        faces = self.recognizer.detect(frame.image, max_faces=self.settings.most)
        ended = self._end(frame.time)
        shared = _shared(faces, self.active)
        pairs, unsure = self._by_overlap(shared)
        # Whom overlap alone cannot tell, and whoever's template would gain, is embedded, all in one pass.
        asked = [
            i
            for i, face in enumerate(faces)
            if i not in pairs or pairs[i].wants(face.quality.score, frame.time, self.settings.sample)
        ]
        embedded = dict(zip(asked, self._embedded([faces[i] for i in asked]), strict=True))
        for i in [i for i in asked if i in pairs and self._is_another(pairs[i], embedded[i])]:
            del pairs[i]
        self._by_embedding(pairs, {i: face for i, face in embedded.items() if i not in pairs})
        for i, track in _greedy(shared, self.settings.overlap, self.active).items():  # nobody is like an unsure face
            if i in unsure and i not in pairs and track not in pairs.values():
                pairs[i] = track
        for track in self.active:
            track.absent += 1
        for i, found in enumerate(faces):
            face = embedded.get(i, found)
            if i in pairs:
                self._go_on(pairs[i], face, frame)
            else:
                self._begin(face, frame)
        return ended

    def _embedded(self, faces: Sequence[Face]) -> list[Face]:
        if not faces:
            return []
        rows = self.recognizer.embedder.embed(np.stack([face.crop for face in faces]))
        return [face.with_embedding(row) for face, row in zip(faces, rows, strict=True)]

    def _is_another(self, track: Track, face: Face) -> bool:
        """Whether a face in a track's place is somebody else's, as after a cut: far from its template."""
        return float(track.template @ face.embedding) < self.settings.threshold / 2

    def finish(self) -> list[Track]:
        """End all tracks."""
        return self._end(np.inf)

    def _end(self, time: float) -> list[Track]:
        over = [t for t in self.active if time - t.end > self.settings.gap and t.absent >= self.settings.absent]
        over = self.active if time == np.inf else over
        self.active = [track for track in self.active if track not in over]
        long = [track for track in over if track.frames >= self.settings.least]
        self.dropped += len(over) - len(long)
        return long

    def _by_overlap(self, shared: npt.NDArray[np.floating]) -> tuple[dict[int, Track], set[int]]:
        """Face -> track by overlap, the largest first, and the faces that overlap several tracks or share one."""
        near = shared >= self.settings.overlap
        crowded = near.sum(0) > 1
        unsure = {i for i in range(len(near)) if near[i].sum() > 1 or bool((near[i] & crowded).any())}
        pairs = _greedy(shared, self.settings.overlap, self.active)
        return {i: track for i, track in pairs.items() if i not in unsure}, unsure

    def _by_embedding(self, pairs: dict[int, Track], faces: dict[int, Face]) -> None:
        """Give faces the tracks they are like, the most similar first; what is like none begins one."""
        free = [track for track in self.active if track not in pairs.values()]
        if free and faces:
            rows, templates = [face.embedding for face in faces.values()], [track.template for track in free]
            order = list(faces)
            for row, track in _greedy(np.stack(rows) @ np.stack(templates).T, self.settings.threshold, free).items():
                pairs[order[row]] = track

    def _begin(self, face: Face, frame: Frame) -> None:
        self._count += 1
        track = Track(self._count, frame.time, frame.time, face, frame.time, face.box)
        track.add(face.embedding, face.quality.score, frame.time)
        self._note(track, face, frame)
        self.active.append(track)

    def _go_on(self, track: Track, face: Face, frame: Frame) -> None:
        track.end, track.frames, track.box, track.absent = frame.time, track.frames + 1, face.box, 0
        if len(face.embedding):
            track.add(face.embedding, face.quality.score, frame.time)
            if face.quality.score > track.best.quality.score:
                track.best, track.best_time = face, frame.time
        self._note(track, face, frame)

    def _note(self, track: Track, face: Face, frame: Frame) -> None:
        if self.keep_boxes:
            track.history.append((frame.number, face.box))


def _shared(faces: Sequence[Face], tracks: Sequence[Track]) -> npt.NDArray[np.floating]:
    """Intersection over union (faces, tracks)."""
    if not faces or not tracks:
        return np.zeros((len(faces), len(tracks)))
    return overlaps(np.stack([face.box for face in faces]), np.stack([track.box for track in tracks]))


def _greedy(score: npt.NDArray[np.floating], least: float, tracks: Sequence[Track]) -> dict[int, Track]:
    """Row -> track, each once, the highest score first, as long as it reaches `least`."""
    rows: dict[int, Track] = {}
    taken: set[int] = set()
    for place in np.argsort(-score, axis=None, kind="stable").tolist():
        row, column = divmod(place, score.shape[1])
        if score[row, column] < least:
            break
        if row not in rows and column not in taken:
            rows[row] = tracks[column]
            taken.add(column)
    return rows
