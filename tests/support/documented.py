"""The commands that README and docs/ show: fenced and indented blocks, and those marked as not run, with the reason."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*")
_PROGRAM = re.compile(r"(?:uv|uvx|pip|python|visavis|torchrun|bash|curl|openssl|systemctl|git|eval|docker)(?: |$)")
_NO_SHELL = {"ini", "nginx", "python", "yaml", "json", "toml", "text"}


@dataclass(frozen=True)
class Block:
    """Commands that stand together on a page; `reason` says why they are not run."""

    page: Path
    line: int
    commands: tuple[str, ...]
    reason: str = ""

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page that hold commands, top to bottom."""
    lines = page.read_text(encoding="utf-8").split("\n")
    found: list[Block] = []
    number = 0
    while number < len(lines):
        start, line = number, lines[number]
        if fence := re.match(r"( *)```(\w*)$", line):
            number = next(i for i in range(start + 1, len(lines)) if lines[i].strip() == "```")
            body = [text.removeprefix(fence[1]) for text in lines[start + 1 : number]]
            shown = [] if fence[2] in _NO_SHELL else body
        elif line.startswith("    ") and (start == 0 or not lines[start - 1].strip()):
            while number + 1 < len(lines) and (lines[number + 1].startswith("    ") or not lines[number + 1].strip()):
                number += 1
            shown = [text[4:] for text in lines[start : number + 1]]
        else:
            number += 1
            continue
        number += 1
        if commands := _commands(shown):
            found.append(Block(page, start + 1, tuple(commands), _reason(lines, start)))
    return found


def _commands(shown: list[str]) -> list[str]:
    joined = "\n".join(shown).replace("\\\n", " ").split("\n")
    return [text.strip() for text in joined if _PROGRAM.match(text.strip())]


def _reason(lines: list[str], start: int) -> str:
    above = start - 1
    while above >= 0 and not lines[above].strip():
        above -= 1
    mark = _MARK.fullmatch(lines[above]) if above >= 0 else None
    return mark[1] if mark else ""


def words_of(command: str) -> list[list[str]]:
    """A line's commands in words: comments go, `a && b` are two."""
    found: list[list[str]] = [[]]
    words = shlex.split(command, comments=True)
    for word in words[: words.index(">")] if ">" in words else words:  # a redirection is the shell's
        if word == "&&":
            found.append([])
        else:
            found[-1].append(word)
    return found


def visavis_words(words: list[str]) -> list[str] | None:
    """What follows `visavis`, however it is started (`uv run visavis`, `torchrun … -m visavis`); None for others."""
    if words[:2] == ["uv", "run"]:
        words = words[2:]
    if words and words[0] == "visavis":
        return words[1:]
    if words and words[0] in ("python", "torchrun") and "-m" in words and words[words.index("-m") + 1] == "visavis":
        return words[words.index("-m") + 2 :]
    return None
