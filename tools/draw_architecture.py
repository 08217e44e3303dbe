"""Draw the rooms of src/visavis, floor by floor, as docs/images/architecture.svg: `python tools/draw_architecture.py`.

The floors are the layers that import-linter holds the code to, so the picture cannot say what the code does not do.
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "images" / "architecture.svg"
WIDTH, LINE, PAD, GAP = 1080, 17, 12, 10
WORDS = {"cli": "one file per verb; the only room that prints"}


def floors() -> list[list[str]]:
    """Rooms from the top floor down, those of one floor together."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(c["layers"] for c in config["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [[name.strip().removeprefix("visavis.") for name in layer.split("|")] for layer in layers]


def wings(room: str) -> list[str]:
    """Folders inside a room that hold modules."""
    folder = ROOT / "src" / "visavis" / room
    return sorted(p.parent.name for p in folder.glob("*/__init__.py")) if folder.is_dir() else []


def purpose(room: str) -> str:
    """The first sentence of a room's docstring."""
    base = ROOT / "src" / "visavis" / room
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    text = WORDS.get(room) or (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
    return text.split("\n")[0].split(". ")[0].rstrip(".")


def wrapped(text: str, width: float) -> list[str]:
    """Lines of at most so many pixels, at about 6.7 a letter."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width / 6.7:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line else lines


def draw() -> str:
    """The picture as SVG text."""
    parts: list[str] = []
    top = GAP
    for floor in floors():
        width = (WIDTH - GAP * (len(floor) + 1)) / len(floor)
        texts = []
        for room in floor:
            lines = wrapped(purpose(room), width - 2 * PAD)
            inside = wings(room)
            lines += wrapped("· " + " · ".join(inside), width - 2 * PAD) if inside else []
            texts.append(lines)
        height = 2 * PAD + LINE * (1 + max(len(lines) for lines in texts))
        for k, (room, lines) in enumerate(zip(floor, texts, strict=True)):
            left = GAP + k * (width + GAP)
            parts.append(f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="6"/>')
            baseline = top + PAD + 12
            parts.append(f'<text class="room" x="{left + PAD:.0f}" y="{baseline}">{escape(room)}</text>')
            for n, line in enumerate(lines, 1):
                y = baseline + n * LINE
                parts.append(f'<text x="{left + PAD:.0f}" y="{y}">{escape(line)}</text>')
        top += height + GAP
    style = (
        "rect{fill:#f6f7f9;stroke:#b6bec9}text{font:12px system-ui,sans-serif;fill:#3b4450}"
        ".room{font-weight:600;font-size:14px;fill:#101828}svg{background:#fff}"
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" '
        f'aria-label="The rooms of visavis, floor by floor; imports go downwards only">\n<style>{style}</style>\n'
        f"{body}\n</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
