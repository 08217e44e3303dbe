"""Faces followed over frames: by overlap, by embedding where overlap cannot tell, one template a track."""

import numpy as np
import pytest

from visavis.deploy.quality import Quality
from visavis.deploy.tracking import FaceTracker, TrackingSettings
from visavis.vision.video import Frame


class People:
    """In a recognizer's place: frames are lists of (left, who, quality); faces of one person have one embedding."""

    def __init__(self):
        self.embedder = self
        self.embedded = 0

    def detect(self, image, *, max_faces):
        from visavis.deploy.face import Face

        return [
            Face(
                np.array([left, 0, left + 100, 100], np.float32), 1.0, np.zeros((5, 2), np.float32),
                np.full((4, 4, 3), who, np.uint8), Quality(quality, (), 40.0, 0.1, 0.0, 0.0, 0.0, 1.0),
            )
            for left, who, quality in image
        ]  # fmt: skip

    def embed(self, crops):
        self.embedded += len(crops)
        return np.eye(4, dtype=np.float32)[crops[:, 0, 0, 0]]


def follow(frames, *, rate=25.0, **settings):
    """Tracks as (who, first frame, last frame, frames), in order of their beginning, and the tracker."""
    tracker, ended = FaceTracker(People(), TrackingSettings(threshold=0.5, **settings)), []
    for k, faces in enumerate(frames):
        ended += tracker.update(Frame([(*f, 1.0)[:3] for f in faces], k, k / rate))
    ended += tracker.finish()
    found = sorted(ended, key=lambda track: track.number)
    return [(int(t.template.argmax()), round(t.start * rate), round(t.end * rate), t.frames) for t in found], tracker


def test_a_face_that_moves_is_one_track_and_seldom_embedded():
    tracks, tracker = follow([[(2 * k, 1)] for k in range(50)])
    assert tracks == [(1, 0, 49, 50)]
    assert tracker.recognizer.embedded == 5  # every 0.4 s of 2


def test_two_that_pass_each_other_keep_their_tracks():
    """Overlap alone would exchange them."""
    frames = [[(4 * k, 1), (200 - 4 * k, 2)] for k in range(51)]
    assert follow(frames)[0] == [(1, 0, 50, 51), (2, 0, 50, 51)]


def test_one_who_was_hidden_goes_on_elsewhere_by_embedding():
    gone = [[(0, 1), (300, 2)]] * 5 + [[(0, 1)]] * 20 + [[(0, 1), (600, 2)]] * 5
    assert follow(gone)[0] == [(1, 0, 29, 30), (2, 0, 29, 10)]


@pytest.mark.parametrize(("away", "tracks"), [(25, 1), (26, 2)])
def test_a_track_ends_when_the_gap_is_over(away, tracks):
    """A face of every 25 fps is seen again 25 frames, 1 s, after it was last; or 26."""
    frames = [[(0, 1)]] * 5 + [[]] * (away - 1) + [[(0, 1)]] * 5
    assert len(follow(frames)[0]) == tracks


def test_somebody_else_in_the_same_place_begins_a_track():
    """A cut between two shots."""
    assert follow([[(0, 1)]] * 10 + [[(0, 2)]] * 20)[0][-1][0] == 2


def test_a_flicker_is_no_track_and_is_counted():
    tracks, tracker = follow([[(0, 1)]] * 2 + [[]] * 40 + [[(300, 2)]] * 3)
    assert tracks == [(2, 42, 44, 3)]
    assert tracker.dropped == 1


def test_the_template_is_weighed_by_quality_and_the_best_crop_kept():
    tracker = FaceTracker(People(), TrackingSettings(threshold=0.5))
    ended = []
    for k, quality in enumerate([0.2, 0.2, 0.9, 0.9, 0.3]):
        ended += tracker.update(Frame([(0, 1, quality)], k, k / 25))
    (track,) = tracker.finish()
    assert track.samples == 2  # the first, and the one so much better
    assert track.best.quality.score == 0.9
    assert track.best_time == 2 / 25
    assert np.linalg.norm(track.template) == pytest.approx(1)


def test_nobody_is_two_faces_of_one_frame():
    """Two faces of one embedding, as in a mirror, are two tracks."""
    assert follow([[(0, 1), (300, 1)]] * 10)[0] == [(1, 0, 9, 10), (1, 0, 9, 10)]


def test_frames_far_between_do_not_end_tracks():
    """A machine that looks every two seconds; a face is gone when it was absent in two of its looks."""
    assert follow([[(0, 1)]] * 5, rate=0.5)[0] == [(1, 0, 4, 5)]
    assert follow([[(0, 1)]] * 3 + [[]] + [[(0, 1)]] * 3, rate=0.5)[0] == [(1, 0, 6, 6)]
    assert len(follow([[(0, 1)]] * 3 + [[]] * 2 + [[(0, 1)]] * 3, rate=0.5)[0]) == 2
