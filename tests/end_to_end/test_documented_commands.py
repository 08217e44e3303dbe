"""Every command that README and docs/ show is run on generated photographs; few are marked as not run, with why."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from documented import PAGES, Block, blocks, visavis_words, words_of
from paths import ROOT
from stand_ins import StandIns, small

from visavis.cli import main

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in BLOCKS if not block.reason]
QUICK = {"README.md", "deploy.md"}  # in the default tests; the other pages are slow
MOST_MARKED = 32
# Names in a page's commands that stand for what a reader has; all else a page's commands write themselves.
NAMES: dict[str, dict[str, str]] = {
    "README.md": {"my-photos": "photos", "other-photos": "photos"},
    "data.md": {"PHOTOS": "photos", "YTF": "clips", "MODEL": "model", "faces_webface": "faces", "lfw": "faces",
                "TRAIN": "faces", "TEST": "others", "SRC": "faces"},
    "deepid.md": {"RUN": "run", "SRC": "faces", "LEARN": "others"},
    "deploy.md": {"MODEL": "model", "PHOTOS": "photos", "PEOPLE": "photos"},
    "evaluation.md": {"MODEL": "model", "SRC": "faces", "lfw.bin": "bin"},
    "export.md": {"MODEL": "model", "SRC": "faces"},
    "finetuning.md": {"mobilefacenet.ckpt": "checkpoint", "faces": "faces", "lfw": "faces", "runs/large": "model",
                      "my-photos": "many_faces", "other-photos": "many_faces"},
    "service.md": {"people.db": "gallery"},
    "training.md": {"faces": "faces", "my.yaml": "recipe"},
}  # fmt: skip
IMAGES = {"a.jpg": (0, 0), "b.jpg": (0, 1), "ada1.jpg": (1, 0), "ada2.jpg": (1, 1), "street.jpg": (2, 0)}
# Blocks in which a name stands for something else than on the rest of their page.
HERE: dict[str, dict[str, str]] = {"--pairs-extension": {"SRC": "dialect", "FILE": "dialect_list", "MODEL": "model"}}
ENVIRONMENT = {"service.md": {"VISAVIS_TOKEN": "a token of sixteen and more"}}


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("stand-ins"))


def _page(name: str):
    marks = [] if name in QUICK else [pytest.mark.slow]
    return pytest.param(name, id=name, marks=marks)


@pytest.mark.parametrize("page", [_page(name) for name in dict.fromkeys(block.page.name for block in RUN)])
def test_the_commands_of_a_page_run_as_written(page, stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.get(page, {}).items():
        monkeypatch.setenv(name, value)
    for number, block in enumerate(block for block in RUN if block.page.name == page):
        own = next((names for word, names in HERE.items() if any(word in c for c in block.commands)), None)
        folder = tmp_path
        if own is not None:
            folder = tmp_path / f"block-{number}"
            folder.mkdir()
            monkeypatch.chdir(folder)
        run_block(block, stand_ins, own if own is not None else NAMES.get(page, {}))
        monkeypatch.chdir(tmp_path)


def run_block(block: Block, stand_ins: StandIns, names: dict[str, str]) -> None:
    """Every command of a block, in its order, from the current folder.

    Raises:
        AssertionError: one does not end with status 0; it is named with its page and line.
    """
    for command in block.commands:
        for words in words_of(command):
            told = visavis_words(words)
            assert told is not None, f"{block.name}: {' '.join(words)} is no visavis command: run it here or mark it"
            _provide(told, stand_ins, names)
            if told[0] == "quickstart":
                continue  # test_quickstart runs it
            if told[0] == "serve":
                _serve(told, block)
                continue
            assert _status(small(told)) == 0, f"{block.name}: visavis {' '.join(told)}"


def _status(words: list[str]) -> object:
    try:
        return main(words)
    except SystemExit as stop:  # --help, and what argparse refuses
        return stop.code


def _provide(words: list[str], stand_ins: StandIns, names: dict[str, str]) -> None:
    """Make what the words name and is not there."""
    for word in words:
        for name in (word, *(name for name in names if word.startswith(name + "/"))):
            make = _maker(name, stand_ins, names)
            if make is not None and not Path(name).exists():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                make(Path(name).absolute())


def _maker(name: str, stand_ins: StandIns, names: dict[str, str]) -> Callable[[Path], None] | None:
    if name in names:
        return getattr(stand_ins, names[name])
    if name in IMAGES:
        return stand_ins.photo(*IMAGES[name])
    if re.fullmatch(r"[ab]\d?\.json", name):
        return stand_ins.evaluation()
    return None


def _serve(words: list[str], block: Block) -> None:
    """Start the service at a free port, ask whether it is ready, and stop it as systemd would."""
    command = [sys.executable, "-m", "visavis", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        assert process.stdout is not None
        said = ""
        while not (found := re.search(r"http://\S+:\d+", said)):
            line = process.stdout.readline()
            assert line, f"{block.name}: visavis {' '.join(words)} ended: {said}"
            said += line
        with urllib.request.urlopen(f"{found[0]}/readyz", timeout=30) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGTERM)  # uvicorn finishes, then ends by the signal it was sent


def test_few_blocks_are_marked_and_each_says_why():
    marked = [block for block in BLOCKS if block.reason]
    reasons = sorted({block.reason for block in marked})
    print(f"{len(RUN)} blocks run, {len(marked)} marked: {'; '.join(reasons)}")
    assert len(RUN) >= 25
    assert len(marked) <= MOST_MARKED, f"{len(marked)} blocks are marked as not run: run what can be run"
    assert all(len(reason) > 8 for reason in reasons)


def test_a_command_that_fails_fails_the_test(stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = Block(
        ROOT / "README.md", 1, ("visavis recipes quickstart  # a comment", "visavis recipes && visavis recipes")
    )
    run_block(good, stand_ins, {})
    for command in ("visavis validate nowhere", "visavis recipes && visavis recipes nowhere"):
        with pytest.raises(AssertionError, match=r"README\.md:7: visavis"):
            run_block(Block(ROOT / "README.md", 7, (command,)), stand_ins, {})
    with pytest.raises(AssertionError, match="run it here or mark it"):
        run_block(Block(ROOT / "README.md", 7, ("pip install uv",)), stand_ins, {})


def test_a_page_is_read_with_both_kinds_of_blocks_and_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n```\nvisavis a \\\n  b  # c\nnothing\n```\n\n<!-- not run: needs a GPU -->\n\n    visavis d\n"
        "    torchrun e\n\n- a list\n\n```python\nvisavis = 1\n```\n\n    L = log x\n\n"
        "<!-- not run: a set -->\n```sh\nvisavis f\n```\n"
    )
    found = [(block.line, block.commands, block.reason) for block in blocks(page)]
    assert found == [
        (3, ("visavis a    b  # c",), ""),
        (11, ("visavis d", "torchrun e"), "needs a GPU"),
        (23, ("visavis f",), "a set"),
    ]


@pytest.mark.slow
def test_quickstart(tmp_path):
    assert main(["quickstart", "--out", str(tmp_path / "run"), "--steps", "20"]) == 0
    assert (tmp_path / "run" / "report.html").is_file()
