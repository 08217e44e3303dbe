"""Frames of a file all of them, of a camera the newest; a stream that stops is opened again."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from visavis.errors import DataError
from visavis.opencv import cv2
from visavis.vision.images import encode
from visavis.vision.video import LiveVideo, is_stream, is_video_path, open_capture, read_video, shown


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "gray.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for i in range(10):
        writer.write(np.full((48, 64, 3), (20 * i, 0, 0), np.uint8))  # blue in OpenCV's order
    writer.release()
    return path


def test_a_file_gives_all_its_frames_in_rgb_with_their_times(film):
    frames = list(read_video(film))
    assert [f.number for f in frames] == list(range(10))
    assert [f.time for f in frames] == pytest.approx([i / 25 for i in range(10)])
    assert frames[9].image.shape == (48, 64, 3)
    assert frames[9].image[0, 0, 2] > 150 > 50 > frames[9].image[0, 0, 0]
    assert [f.number for f in read_video(film, every=4)] == [0, 4, 8]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "expected a video"),
        (b"hello, this is a letter\n" * 10, "expected a video"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "expected a video"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 400, "cannot be decoded"),
    ],
)
def test_what_is_no_video_is_said(tmp_path, content, said):
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        list(read_video(path))


def test_a_playlist_reaches_no_network(tmp_path):
    """Though its name says what it is."""
    asked = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Listening) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("x.m3u8", "x.mp4"):
            text = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{server.server_port}/x.ts\n#EXT-X-ENDLIST\n"
            (tmp_path / name).write_text(text)
            with pytest.raises(DataError):
                list(read_video(tmp_path / name))
        server.shutdown()
    assert asked == []


def test_cameras_streams_and_videos_are_told_by_their_names():
    assert all(map(is_stream, ("0", "12", "rtsp://camera/1", "RTSPS://x", "http://x/y.mjpg", "https://x")))
    assert not any(map(is_stream, ("a.mp4", "1234", "-1", "ftp://x", "0.jpg", "")))
    assert is_video_path("A.MP4")
    assert not is_video_path("a.jpg")
    assert shown("rtsp://ada:secret@camera:554/1") == "rtsp://camera:554/1"
    with pytest.raises(DataError, match=r"^rtsp://127.0.0.1:9/x: no stream could be opened") as caught:
        open_capture("rtsp://ada:secret@127.0.0.1:9/x")
    assert "secret" not in str(caught.value)


class Camera:
    """Gives so many frames, each after a pause, then none."""

    def __init__(self, frames, pause):
        self.left, self.pause, self.released = frames, pause, False

    def read(self):
        time.sleep(self.pause)
        self.left -= 1
        return (True, np.full((8, 8, 3), self.left % 256, np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        self.released = True


def test_lag_is_dropped_and_counted():
    """Somebody slow sees the newest frame, not the ones that came meanwhile."""
    with LiveVideo("0", open_with=lambda _: Camera(10_000, 0.002)) as live:
        seen = []
        for frame in live:
            seen.append(frame.number)
            time.sleep(0.05)
            if len(seen) == 6:
                break
        assert seen == sorted(set(seen))
        assert seen[-1] > 20
        assert live.dropped >= seen[-1] - 6


def test_a_stream_that_stops_is_opened_again_with_growing_pauses(monkeypatch):
    opened, failing = [], [DataError("away")] * 3

    def open_again(_):
        opened.append(time.monotonic())
        if len(opened) > 1 and failing:
            raise failing.pop()
        return Camera(3, 0.001)

    with LiveVideo("0", open_with=open_again, pause=0.02, longest=0.08) as live:
        for frame in live:
            if live.reconnects == 2 and frame.number >= 7:
                break
    pauses = np.diff(opened[:5])
    assert (pauses >= [0.02, 0.04, 0.08, 0.08]).all()
    assert live.frames >= 8


def test_what_cannot_be_opened_at_the_start_is_said_at_once():
    def never(_):
        raise DataError("there is no such camera")

    with pytest.raises(DataError, match="no such camera"):
        LiveVideo("0", open_with=never)


def test_closing_lets_go_of_the_camera():
    camera = Camera(10**6, 0.001)
    with LiveVideo("0", open_with=lambda _: camera) as live:
        next(iter(live))
    assert camera.released
    assert list(live) == []


def test_a_real_stream_over_the_network_goes_on_after_the_server_was_away():
    """Motion JPEG over HTTP on the loopback, read by OpenCV's FFmpeg; each answer ends after some pictures."""
    image = encode(np.full((48, 64, 3), 90, np.uint8), ".jpg")

    class Streaming(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(40):
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(image)
                self.wfile.write(head + image + b"\r\n")
                time.sleep(0.01)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Streaming) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/live.mjpg"
        with LiveVideo(address, pause=0.05) as live:
            until = time.monotonic() + 60
            for frame in live:
                assert frame.image.shape == (48, 64, 3)
                if live.reconnects >= 1 or time.monotonic() > until:
                    break
        assert live.reconnects >= 1
        server.shutdown()
