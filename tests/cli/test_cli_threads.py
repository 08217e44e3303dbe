"""--threads: in every verb that computes, and heeded by what computes."""

import subprocess
import sys

import pytest

from visavis.cli import COMPUTING, build_parser, main

CHILD = """
import os, sys
from visavis.cli import main
import visavis.cli.validate as verb
def run(args):
    from visavis.machine import usable_cores
    import cv2, torch
    print(usable_cores(), torch.get_num_threads(), cv2.getNumThreads())
verb.run = run
sys.exit(main(["validate", "nowhere", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("verb", sorted(COMPUTING))
def test_every_verb_that_computes_takes_it(verb, capsys):
    with pytest.raises(SystemExit):
        build_parser(verb).parse_args([verb, "--help"])
    assert "--threads N" in capsys.readouterr().out


def test_it_is_a_count(capsys):
    assert main(["validate", "nowhere", "--threads", "0"]) == 2
    assert capsys.readouterr().err == "visavis: --threads must be 1 or more, got 0\n"


def test_what_computes_heeds_it():
    done = subprocess.run([sys.executable, "-c", CHILD, "--threads", "1"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "1"]
