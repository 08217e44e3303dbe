"""Who closes the pipe does not end the work: only what is printed is lost."""

import io
import os
import subprocess
import sys

import yaml

from visavis.cli.output import LastingStream
from visavis.train.checkpoint import load_checkpoint


def start(*words, **options):
    return subprocess.Popen([sys.executable, "-m", "visavis", *map(str, words)], text=True, **options)


def test_a_training_whose_output_is_closed_trains_to_its_end(tmp_path):
    recipe = {
        "data": {"synthetic": {"identities": 4, "images_per_identity": 4, "size": 32}, "workers": 0},
        "preprocess": {"size": [28, 28]},
        "backbone": {"name": "small", "dim": 8, "args": {"width": 8}},
        "loop": {"batch_size": 4, "steps": 30, "log_every": 1, "checkpoint_every": 10, "device": "cpu"},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    words = ("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    process = start(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=200) == 0
    assert load_checkpoint(tmp_path / "run")["step"] == 30
    assert "30 steps of 4 pictures" in (tmp_path / "run" / "log.txt").read_text()


def test_a_failure_is_told_by_the_status_though_nobody_reads(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = start("train", tmp_path / "nothing.yaml", stdout=writing, stderr=writing)
    os.close(writing)
    assert process.wait(timeout=60) == 2


def test_a_list_is_done_when_nobody_reads_on():
    reading, writing = os.pipe()
    os.close(reading)
    process = start("recipes", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)


def test_a_stream_that_fails_is_not_tried_again(tmp_path):
    class Full(io.StringIO):
        tries = 0

        def write(self, text):
            Full.tries += 1
            raise OSError(28, "No space left on device")

        def fileno(self):
            return target.fileno()

    with (tmp_path / "target").open("w") as target:
        stream = LastingStream(Full())
        assert stream.write("abc") == 3
        target.write("goes nowhere")
        target.flush()
    assert (tmp_path / "target").read_text() == ""
    assert Full.tries == 1
