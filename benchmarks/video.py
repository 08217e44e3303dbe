"""Frames a second of `visavis identify` on a video of 640×480 with two faces, on one core, stage by stage.

    python benchmarks/video.py [--model sface] [--model mbf/model.onnx] [--frames 100]

A video is generated in which two people are before the camera all the time. Decoded, searched for faces, followed
(crops, quality, embeddings now and then) and identified among the generated people, in one process of one thread;
the seconds are the processor's. For comparison every face of every frame is embedded. Rounds take turns. Also how the
tracks that are found compare with the known ones, on videos where one person leaves, comes back, and passes behind
the other. Writes results/video.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, about, take_turns, write

from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.tracking import FaceTracker, Track, TrackingSettings
from visavis.deploy.video_identification import identify_track
from visavis.opencv import cv2
from visavis.synthetic.moving_scenes import RATE, MovingScene, moving_scene
from visavis.synthetic.parallel import people
from visavis.vision.detection.detectors import overlaps
from visavis.vision.video import read_video

DETECTORS = ("mtcnn", "yunet")


def film(path: Path, scenes: list[MovingScene]) -> None:
    """Write frames as Motion JPEG."""
    height, width = scenes[0].image.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (width, height))
    for scene in scenes:
        writer.write(cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR))
    writer.release()


def follow(recognizer: Recognizer, path: Path, settings: TrackingSettings) -> list[Track]:
    """The tracks of a video."""
    tracker = FaceTracker(recognizer, settings, keep_boxes=True)
    return [track for frame in read_video(path) for track in tracker.update(frame)] + tracker.finish()


def compared(found: list[Track], scenes: list[MovingScene]) -> dict[str, Any]:
    """How the tracks found lie among the known ones; a face is of the known track it overlaps by 0.3."""
    pure = frames = 0
    of: list[int] = []
    for track in found:
        seen: Counter[int] = Counter()
        for frame, box in track.history:
            scene = scenes[frame]
            shared = overlaps(box[None].astype(float), scene.boxes)[0] if len(scene.boxes) else np.zeros(0)
            best = int(shared.argmax()) if len(shared) else -1
            seen[int(scene.tracks[best]) if best >= 0 and shared[best] >= 0.3 else -1] += 1
        whose, most = seen.most_common(1)[0]
        pure, frames = pure + most, frames + track.frames
        of.append(whose)
    return {"known tracks": 3, "found": len(found), "of different known ones": len(set(of) - {-1}),
            "faces in the track of their own person": pure, "faces": frames,
            "known faces": int(sum(len(scene.tracks) for scene in scenes))}  # fmt: skip


def measure(model: str, detector: str, gallery_file: Path, path: Path, frames: int, videos: Any) -> dict[str, Any]:
    """Seconds of each stage, and the tracks."""
    recognizer = Recognizer.load(model, detector=detector, threads=1, turn="never")
    point = recognizer.point()
    settings = TrackingSettings() if point is None else TrackingSettings(threshold=point.threshold)
    with Gallery(gallery_file, recognizer.identity, create=True) as gallery:
        for number, (crops, _) in enumerate(people(0, range(20), 4, difficulty=0.5)):
            faces = [recognizer.get(crop, aligned=True)[0].embedding for crop in crops]
            gallery.enroll(f"id_{number:06d}", np.stack(faces))

        def identify() -> None:
            for track in follow(recognizer, path, settings):
                identify_track(track, gallery, point)

        stages = {
            "decoded": lambda: sum(1 for _ in read_video(path)),
            "decoded, faces found": lambda: [recognizer.detector.detect(f.image) for f in read_video(path)],
            "identify (followed, embedded now and then)": identify,
            "every face of every frame embedded": lambda: [recognizer.get(f.image) for f in read_video(path)],
        }
        seconds = take_turns(stages, 5, count=frames)
        result: dict[str, Any] = {
            name: {"frames/s": 1 / s["median"], "ms": 1000 * s["median"], "spread": s["spread"]}
            for name, s in seconds.items()
        }
        named = Counter()
        tracks = []
        for scenes, clip in videos:
            found = follow(recognizer, clip, settings)
            tracks.append(compared(found, scenes))
            who = {int(t): int(i) for s in scenes for t, i in zip(s.tracks, s.identities, strict=True)}
            for track in found:
                answer = identify_track(track, gallery, point)
                inside = [t for frame, _ in track.history for t in scenes[frame].tracks.tolist()]
                right = answer.match is not None and answer.match.name in {f"id_{who[t]:06d}" for t in inside}
                named[
                    "right" if right else "wrong" if answer.match else "unknown" if answer.decided else "undecided"
                ] += 1
        result["tracks"] = {key: sum(t[key] for t in tracks) for key in tracks[0]}
        result["tracks"]["named"] = dict(named)
    return result


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a MODEL; repeatable (sface)")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--videos", type=int, default=4, help="of 200 frames, for the tracks (4)")
    parser.add_argument("--out", type=Path, default=RESULTS / "video.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        shown = (scene for scene in moving_scene(0, 99, (0, 1), 4 * args.frames) if len(scene.tracks) == 2)
        both = list(islice(shown, args.frames))  # before they pass each other
        film(Path(folder) / "both.avi", both)
        videos = []
        for k in range(args.videos):
            scenes = list(moving_scene(0, k, (2 * k, 2 * k + 1), 200))
            film(Path(folder) / f"{k}.avi", scenes)
            videos.append((scenes, Path(folder) / f"{k}.avi"))
        found = {
            f"{Path(model).parent.name or model}, {detector}": measure(
                model, detector, Path(folder) / f"{i}-{detector}.db", Path(folder) / "both.avi", len(both), videos
            )
            for i, model in enumerate(args.model or ["sface"])
            for detector in DETECTORS
        }
    write({**about(threads=1, frames=len(both)), **found}, args.out)


if __name__ == "__main__":
    main()
