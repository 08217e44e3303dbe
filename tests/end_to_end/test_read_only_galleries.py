"""A gallery nobody may write is still read, and one moved with its model finds it."""

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import visavis
from visavis.cli import main
from visavis.deploy.client import Client, ServiceError

SOURCE = str(Path(visavis.__file__).parents[1])
pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes are POSIX'")


def _obey_modes():
    """Root writes whatever it likes; without these two capabilities it obeys as others do."""
    if os.getuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def start(*words):
    return subprocess.Popen(
        [sys.executable, "-m", "visavis", *map(str, words)], preexec_fn=_obey_modes, text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def run(*words):
    process = start(*words)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


@pytest.fixture
def sealed(color_model, colored_people, tmp_path):
    """A gallery with its model beside it, in a folder that cannot be written."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(color_model, home / "model.onnx")
    file = home / "people.db"
    assert main(["enroll", str(file), str(colored_people), "--model", str(home / "model.onnx"), "--aligned"]) == 0
    before = {path: path.read_bytes() for path in home.iterdir()}
    for path in before:
        path.chmod(0o444)
    home.chmod(0o555)
    yield file
    home.chmod(0o755)
    assert {path: path.read_bytes() for path in home.iterdir()} == before


def test_what_only_reads_needs_no_right_to_write(sealed, colored_people, tmp_path):
    red = colored_people / "red" / "0.png"
    out_file = tmp_path / "export.npz"
    for words, said in (
        (["gallery", sealed, "list"], "red"),
        (["gallery", sealed, "duplicates", "--threshold", "0.9"], ""),
        (["gallery", sealed, "fpir", "--threshold", "0.9"], ""),
        (["gallery", sealed, "check"], ""),
        (["gallery", sealed, "export", out_file], ""),
        (["gallery", sealed, "backup", tmp_path / "copy.db"], ""),
        (["identify", sealed, red, "--aligned"], "red"),
    ):
        status, out, errors = run(*words)
        assert status == 0, (words, errors)
        assert said in out
    assert out_file.is_file()
    assert "green" in run("gallery", tmp_path / "copy.db", "list")[1]


def test_what_writes_says_so_in_one_line(sealed, colored_people):
    red = colored_people / "red" / "0.png"
    for words in (
        ["gallery", sealed, "rename", "red", "scarlet"],
        ["forget", sealed, "red"],
        ["enroll", sealed, red, "--name", "x", "--aligned"],
        ["serve", sealed, "--port", "0"],
    ):
        status, _, errors = run(*words)
        assert status == 2, words
        assert len(errors.strip().splitlines()) == 1, errors
        assert "cannot be written" in errors
        assert ("--read-only" in errors) == (words[0] == "serve")


def test_a_service_that_only_reads(sealed, colored_people):
    image = colored_people / "red" / "0.png"
    process = start("serve", sealed, "--port", "0", "--read-only")
    line = next(line for line in process.stdout if "page http" in line)
    url = re.search(r"http://[\d.:]+", line)[0]
    with Client(url) as client:
        assert client.identify(image, aligned=True)["faces"][0]["match"]["name"] == "red"
        assert client.verify(image, image, aligned=True)["match"] is True
        assert client.subjects()["total"] == 3
        assert client.model()["role"] == "read"
        for attempt in (
            lambda: client.enroll("x", [image], aligned=True),
            lambda: client.forget("red"),
            lambda: client.update(1, name="x"),
        ):
            with pytest.raises(ServiceError, match="403: this service was started with --read-only"):
                attempt()
        assert httpx.get(url + "/metrics").status_code == 200
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert "tried again" not in errors


def test_read_only_refuses_what_could_not_take_effect(color_model, tmp_path, capsys):
    words = ["serve", str(tmp_path / "g.db"), "--model", str(color_model), "--read-only"]
    assert main([*words, "--keep-crops"]) == 2
    assert "cannot take effect" in capsys.readouterr().err
    assert main(words) == 2
    assert "no such gallery" in capsys.readouterr().err


def enroll(home, color_model, colored_people, model):
    home.mkdir()
    shutil.copy(color_model, home / "model.onnx")
    words = ["enroll", str(home / "people.db"), str(colored_people), "--model", str(model), "--aligned"]
    assert main(words) == 0
    return home / "people.db.model"


def test_a_gallery_moved_with_its_model_finds_it(color_model, colored_people, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note = enroll(tmp_path / "here", color_model, colored_people, Path("here/model.onnx"))
    assert note.read_text() == "model.onnx\n"
    (tmp_path / "here").rename(tmp_path / "there")
    probe = str(colored_people / "red" / "0.png")
    assert main(["identify", "there/people.db", probe, "--aligned"]) == 0
    monkeypatch.chdir("/")
    assert main(["identify", str(tmp_path / "there" / "people.db"), probe, "--aligned"]) == 0
    (tmp_path / "there" / "model.onnx").unlink()
    capsys.readouterr()
    assert main(["identify", str(tmp_path / "there" / "people.db"), probe, "--aligned"]) == 2
    said = capsys.readouterr().err
    assert "there/model.onnx, where nothing is now; say where it is: --model MODEL" in said
    assert len(said.strip().splitlines()) == 1


def test_a_note_of_an_earlier_version_finds_a_model_moved_along(color_model, colored_people, tmp_path):
    note = enroll(tmp_path / "here", color_model, colored_people, tmp_path / "here" / "model.onnx")
    note.write_text(f"{tmp_path / 'here' / 'model.onnx'}\n")  # as it was written
    (tmp_path / "here").rename(tmp_path / "there")
    probe = str(colored_people / "red" / "0.png")
    assert main(["identify", str(tmp_path / "there" / "people.db"), probe, "--aligned"]) == 0


def test_a_model_elsewhere_is_remembered_where_it_is(color_model, colored_people, tmp_path, capsys):
    note = enroll(tmp_path / "here", color_model, colored_people, color_model)
    assert note.read_text() == f"{color_model.resolve()}\n"
    (tmp_path / "here" / "people.db").rename(tmp_path / "people.db")
    note.rename(tmp_path / "people.db.model")
    probe = str(colored_people / "red" / "0.png")
    capsys.readouterr()
    assert main(["identify", str(tmp_path / "people.db"), probe, "--aligned", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["faces"][0]["match"]["name"] == "red"
