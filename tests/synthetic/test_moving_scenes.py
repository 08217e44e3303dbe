"""Videos with known tracks."""

import numpy as np
import pytest

from visavis.cli import main
from visavis.errors import DataError
from visavis.synthetic.moving_scenes import moving_scene
from visavis.vision.video import read_video


def test_the_second_person_leaves_comes_back_and_passes_behind_the_first():
    scenes = list(moving_scene(0, 0, (3, 5), 20, size=(240, 320)))
    present = [sorted(scene.tracks.tolist()) for scene in scenes]
    assert present[0] == [0]
    assert present[4] == [0, 1]
    assert present[10] == [0]
    assert present[-1] == [0, 2]
    assert all(scene.image.shape == (240, 320, 3) and scene.image.dtype == np.uint8 for scene in scenes)
    whose = {(t, i) for scene in scenes for t, i in zip(scene.tracks.tolist(), scene.identities.tolist(), strict=True)}
    assert whose == {(0, 3), (1, 5), (2, 5)}
    side = [np.sign(s.boxes[list(s.tracks).index(2), 0] - s.boxes[list(s.tracks).index(0), 0]) for s in scenes[13:]]
    assert {side[0], side[-1]} == {1.0, -1.0}


def test_the_same_seed_gives_the_same_video():
    first, second = (list(moving_scene(1, 2, (0,), 10, size=(240, 320))) for _ in range(2))
    assert all((a.image == b.image).all() and (a.boxes == b.boxes).all() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("bad", [{"identities": ()}, {"identities": (1, 2, 3)}, {"frames": 9}, {"size": (200, 320)}])
def test_what_cannot_be_drawn_is_said(bad):
    values = {"identities": (1, 2), "frames": 10, "size": (240, 320), **bad}
    with pytest.raises(DataError, match="a video wants"):
        next(moving_scene(0, 0, values["identities"], values["frames"], size=values["size"]))


def test_the_verb_writes_videos_and_who_is_where(tmp_path, capsys):
    words = ["synth", str(tmp_path / "v"), "--clips", "--identities", "3", "--images-per-identity", "10"]
    assert main(words) == 0
    assert "2 videos of 10 frames" in capsys.readouterr().out
    lines = [line.split("\t") for line in (tmp_path / "v" / "tracks.tsv").read_text().splitlines()]
    assert lines[0][:4] == ["video", "frame", "track", "identity"]
    assert {line[3] for line in lines[1:]} == {"id_000000", "id_000001", "id_000002"}
    for k in range(2):
        frames = list(read_video(tmp_path / "v" / "videos" / f"video_{k:06d}.avi"))
        assert [f.image.shape for f in frames] == [(480, 640, 3)] * 10
    assert main(words) == 0  # its own folder may be filled again
    assert main([*words, "--scenes"]) == 2
    assert "choose one" in capsys.readouterr().err
