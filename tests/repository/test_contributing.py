"""CONTRIBUTING.md shows what stands in the code, and the drawing of the house is the code's own."""

import re
import runpy

import pytest
from paths import ROOT


def shown():
    """(file, line) of every line that CONTRIBUTING.md shows as added."""
    for block in re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S):
        file = None
        for line in block.splitlines():
            if line.startswith("+++ "):
                file = line[4:]
            elif line.startswith("+"):
                yield file, line[1:]


LINES = list(shown())


def test_six_parts_are_shown():
    assert len({file for file, _ in LINES}) >= 12
    assert len(LINES) > 25


@pytest.mark.parametrize(("file", "line"), LINES)
def test_a_line_shown_stands_in_its_file(file, line):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    assert line in lines or line.strip() in [entry.strip() for entry in lines]


def test_the_drawing_is_of_the_house_as_it_stands():
    draw = runpy.run_path(str(ROOT / "tools" / "draw_architecture.py"))["draw"]
    drawn = (ROOT / "docs" / "images" / "architecture.svg").read_text(encoding="utf-8")
    assert drawn == draw(), "draw it again: python tools/draw_architecture.py"
    rooms = set(re.findall(r'class="room"[^>]*>([^<]+)<', drawn))
    there = {p.parent.name for p in (ROOT / "src" / "visavis").glob("*/__init__.py")} - {"recipes"}
    assert there <= rooms


def test_every_room_the_page_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:/|\.py))`", text):
        assert (ROOT / "src" / "visavis" / path).exists(), path
