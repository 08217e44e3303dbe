"""The commands that docs/reference-systems.md sets beside what the four systems publish, run at small size."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from documented import visavis_words
from paths import ROOT
from stand_ins import StandIns, call, small

from visavis.cli import main
from visavis.vision import images

PAGE = ROOT / "docs" / "reference-systems.md"
ROW = re.compile(r"\| ([DSMA]\d[^|]*) \| ([^|]+) \| `([^`]+)` \|")
TABLE = [(m[1], visavis_words(shlex.split(m[3])) or []) for m in map(ROW.fullmatch, PAGE.read_text().split("\n")) if m]
SYSTEMS = {"D": "DeepID", "S": "SphereFace", "M": "MassFace", "A": "ArcFace"}


def rows_named(text: str) -> set[str]:
    """D1–D4, D6 as the rows it names."""
    found = set()
    for letter, first, last in re.findall(r"([DSMA])(\d+)(?:–[DSMA](\d+))?", text):
        found |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def test_every_row_of_what_is_published_has_a_command_or_a_reason():
    """Faults to avoid (D14–, S16–, M14–, A10–) and facts about sizes (D6, S4) need none."""
    text = PAGE.read_text()
    known = set(re.findall(r'<a id="([dsma]\d+)">', text))
    faults = {f"{letter}{n}" for letter, low, high in (("D", 14, 19), ("S", 16, 21), ("M", 14, 22), ("A", 10, 19))
              for n in range(low, high + 1)}  # fmt: skip
    left_out = rows_named(text.split("Left out, and why:")[1].split("## 1.")[0])
    named = set().union(*(rows_named(rows) for rows, _ in TABLE))
    facts = {"D6", "D7", "S10", "M3", "M10"}  # sizes, initial values, how the source is configured, its layout on GPUs
    assert {name.upper() for name in known} - faults - facts <= named | left_out
    assert {name.lower() for name in named} <= known
    assert len(TABLE) >= 28


class Originals(StandIns):
    """Generated people in the layouts of the originals."""

    def long_clips(self, path: Path) -> None:
        """Clips of whom half have more than the 100 frames that row D3 wants, by showing frames again."""
        self.clips(path)
        tree = path / "aligned_images_DB" if (path / "aligned_images_DB").is_dir() else path
        for person in sorted(p for p in tree.iterdir() if p.is_dir())[:4]:
            frames = sorted(person.glob("*/*.jpg"))
            for again in range(max(0, 104 - len(frames))):
                frame = frames[again % len(frames)]
                (frame.parent / f"0.{5000 + again}.jpg").write_bytes(frame.read_bytes())

    def narrow(self, path: Path) -> None:
        """112 × 96 crops with pairs."""
        self.faces(path)
        for picture in sorted((path / "images").glob("*/*")):
            images.write(picture, images.read(picture)[:, 8:104].copy())

    def landmark_list(self, path: Path) -> None:
        """`path label x1 y1 …` of CASIA's photographs."""
        call("prepare", path.parent / "CASIA", path.parent / "CASIA found", "--workers", 1)
        path.write_text((path.parent / "CASIA found" / "source_landmarks.txt").read_text())

    def records(self, path: Path) -> None:
        """train.rec and train.idx."""
        self.faces(path.with_name("faces of the records"))
        call("convert", path.with_name("faces of the records"), path, "--to", "record")

    def ijb(self, path: Path) -> None:
        """IJB's lists and pictures: two templates a person of three pictures each."""
        self.faces(path.with_name("faces of IJB"))
        (path / "loose_crop").mkdir(parents=True)
        (path / "meta").mkdir()
        media, points, number = [], [], 0
        people = sorted((path.with_name("faces of IJB") / "images").iterdir())
        for person, folder in enumerate(people):
            for k, picture in enumerate(sorted(folder.iterdir())):
                number += 1
                images.write(path / "loose_crop" / f"{number}.jpg", images.read(picture))
                media.append(f"{number}.jpg {2 * person + min(k, 1)} {number}")
                points.append(f"{number}.jpg 38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2 {0.9 + k / 100}")
        pairs = [f"{2 * a} {2 * b + 1} {int(a == b)}" for a in range(len(people)) for b in range(len(people))]
        for name, lines in (("face_tid_mid", media), ("name_5pts_score", points), ("template_pair_label", pairs)):
            (path / "meta" / f"ijbc_{name}.txt").write_text("\n".join(lines) + "\n")


def makers(originals: Originals) -> dict[str, object]:
    return {
        "YTF": originals.long_clips, "CASIA": originals.photos, "casia_landmark.txt": originals.landmark_list,
        "LFW96": originals.narrow, "LFW": originals.faces, "CASIA112": originals.faces, "lfw.bin": originals.bin,
        "faces_emore": originals.records, "IJBC": originals.ijb,
    }  # fmt: skip


def smaller(words: list[str]) -> list[str]:
    """`small`, on networks of the same family and one step a run."""
    if words[:2] == ["train", "--resume"]:
        return [*words[:3], "--loop.steps=4"]
    words = small(words)
    if words[0] == "train" and "arcface" in words:
        words += ["--backbone.name=iresnet18", "--loop.precision=fp32"]
    if words[0] == "train" and "sphereface" in words:
        words += ["--loop.precision=fp32"]
    if words[0] == "train" and "massface-triplet" in words:
        words += ["--loop.batch_size=6", "--data.images_per_class=2"]
    return words


@pytest.mark.slow
@pytest.mark.timeout(900)  # eight commands and more a system, on networks of the original sizes
@pytest.mark.parametrize("letter", SYSTEMS)
def test_the_commands_of_a_system_run_as_the_table_has_them(letter, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = makers(Originals(tmp_path_factory.mktemp("originals")))
    run = 0
    for rows, words in TABLE:
        if not rows.startswith(letter):
            continue
        if "mindir" in words and importlib.util.find_spec("mindspore") is None:
            continue
        for word in words:
            if word in known and not Path(word).exists():
                known[word](tmp_path / word)
        assert words, rows
        assert main(smaller(words)) == 0, f"{rows}: visavis {' '.join(words)}"
        run += 1
    assert run >= 5
