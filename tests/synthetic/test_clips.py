"""Generated clips: smooth, deterministic, in YouTube Faces' layout, and of use to DeepID's preparation."""

from pathlib import Path

import numpy as np
import pytest

from visavis.cli import main
from visavis.data.sources.youtube_faces import read_tree
from visavis.synthetic.clips import clip, clip_count
from visavis.vision import images
from visavis.vision.alignment import template_points


def test_motion_is_smooth_within_a_clip_and_jumps_between_clips() -> None:
    shown, points = clip(0, 3, 0, 12, size=96)
    assert shown.shape == (12, 96, 96, 3)
    step = np.linalg.norm(np.diff(points, axis=0), axis=2).max()
    assert 0 < step < 1.5  # pixels from frame to frame
    again, _ = clip(0, 3, 0, 12, size=96)
    np.testing.assert_array_equal(shown, again)
    _, other = clip(0, 3, 1, 1, size=96)
    assert np.linalg.norm(other[0] - points[0], axis=1).max() > step
    near, far = (np.abs(shown[0].astype(int) - frame).mean() for frame in (shown[1], clip(0, 3, 1, 1, size=96)[0][0]))
    assert near < 0.5 * far


def test_the_face_fills_the_middle_half() -> None:
    _, points = clip(2, 5, 0, 4, size=128)
    assert np.abs(points.mean(0) - (template_points("arcface", (64, 64)) + 32)).max() < 10


def test_people_have_one_to_four_clips_about_2_15_each() -> None:
    counts = [clip_count(0, i) for i in range(2000)]
    assert set(counts) == {1, 2, 3, 4}
    assert np.mean(counts) == pytest.approx(2.15, abs=0.08)


def test_clips_are_written_and_prepared_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = [
        "--identities",
        "3",
        "--images-per-identity",
        "3",
        "--size",
        "32",
        "--workers",
        "1",
        "--first-identity",
        "2",
    ]
    assert main(["synth", "--youtube-faces", str(tmp_path / "yt"), *size]) == 0
    root, people, skipped = read_tree(tmp_path / "yt")
    assert list(people) == ["id_000002", "id_000003", "id_000004"]
    assert {name: len(clips) for name, clips in people.items()} == {f"id_{i:06d}": clip_count(0, i) for i in (2, 3, 4)}
    assert skipped == 0
    assert images.read(root / people["id_000002"]["0"][0]).shape == (64, 64, 3)
    assert main(["prepare", "--youtube-faces", str(tmp_path / "yt"), str(tmp_path / "ready")]) == 2
    assert "nobody has the 100 frames" in capsys.readouterr().err
