"""visavis detect: the faces of pictures and folders, as a table and as JSON lines."""

import json

import numpy as np
import pytest

from visavis.cli import main
from visavis.opencv import cv2
from visavis.synthetic.scenes import scene
from visavis.vision import images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two photographs of one face each, in folders, beside a file that is no picture and a damaged one."""
    root = tmp_path_factory.mktemp("photos")
    for number in (0, 3):
        path = root / "some" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        images.write(path, scene(5, number, range(1), difficulty=0.4).image)
    (root / "some" / "notes.txt").write_text("no picture")
    (root / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    return root


def test_a_picture_has_its_faces_where_they_were_drawn(photos, capsys):
    shown = scene(5, 0, range(1), difficulty=0.4)
    assert main(["detect", str(photos / "some" / "0.png"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    (face,) = answer["faces"]
    eyes = np.linalg.norm(shown.landmarks[0][1] - shown.landmarks[0][0])
    assert np.abs(np.array(face["landmarks"]) - shown.landmarks[0]).max() < 0.3 * eyes
    assert face["score"] > 0.9
    assert face["eye_distance"] == pytest.approx(eyes, rel=0.3)
    assert set(face["pose"]) == {"yaw", "pitch", "roll"}
    assert answer["turned"] == 0


def test_a_folder_is_walked_a_line_a_picture_and_what_is_left_out_is_said(photos, capsys):
    assert main(["detect", str(photos / "some"), "--json"]) == 0
    out, err = capsys.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["picture"] for answer in answers] == [str(photos / "some" / f"{n}.png") for n in (0, 3)]
    assert "1 entries are no pictures, first:" in err
    assert "notes.txt" in err


def test_a_damaged_picture_among_others_is_named_and_the_others_are_looked_at(photos, capsys):
    assert main(["detect", str(photos)]) == 2
    out, err = capsys.readouterr()
    assert "damaged.jpg: " in out
    assert out.count("1 face\n") == 2
    assert "2 faces in 2 pictures" in out
    assert "yaw" in out
    assert "1 pictures could not be read" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.jpg"], "none.jpg"),
        (["damaged.jpg"], "damaged.jpg"),
        (["empty"], "expected pictures"),
        (["some", "--max-faces", "0"], "--max-faces must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(photos, capsys, words, said):
    (photos / "empty").mkdir(exist_ok=True)
    assert main(["detect", str(photos / words[0]), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    (photos / "empty").rmdir()


def test_no_face_is_an_answer(tmp_path, capsys):
    images.write(tmp_path / "wall.png", np.full((100, 100, 3), 120, np.uint8))
    assert main(["detect", str(tmp_path / "wall.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'wall.png'}: no face\n"


def test_a_video_is_looked_at_frame_by_frame_and_a_list_line_by_line(photos, tmp_path, capsys, monkeypatch):
    import io

    shown = scene(5, 0, range(1), difficulty=0.4).image
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, shown.shape[1::-1])
    for _ in range(5):
        writer.write(np.ascontiguousarray(shown[..., ::-1]))
    writer.release()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos / 'some' / '3.png'}\n{path}\n"))
    assert main(["detect", "-", "--every", "2", "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(a.get("frame"), a.get("time"), len(a["faces"])) for a in answers] == [
        (None, None, 1), (0, 0.0, 1), (2, 0.08, 1), (4, 0.16, 1),
    ]  # fmt: skip
