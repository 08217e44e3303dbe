"""Contact sheets: many pictures with captions on one page, for a person to look through."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from visavis.types import ByteArray
from visavis.vision.images import resize


def contact_sheet(
    images: Sequence[ByteArray | None],
    captions: Sequence[str],
    *,
    columns: int = 8,
    side: int = 128,
    group: int = 1,
) -> ByteArray:
    """Draw pictures (None: unreadable) side by side, each in a square of `side` pixels over two lines of caption.

    Shapes: each (H, W, 3).

    Pictures that belong together, `group` at a time, are set apart from the next ones.
    """
    rows = -(-len(images) // columns) or 1
    text, gap = 24, 14 if group > 1 else 0
    sheet = Image.new("RGB", (columns * side + (columns - 1) // group * gap, rows * (side + text)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = i % columns * side + i % columns // group * gap, i // columns * (side + text)
        if image is None:
            draw.rectangle((x + 2, y + 2, x + side - 3, y + side - 3), outline="gray")
            draw.text((x + 6, y + side // 2), "unreadable", fill="gray")
        else:
            height, width = image.shape[:2]
            scale = (side - 4) / max(height, width)
            small = resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
            sheet.paste(Image.fromarray(small), (x + 2, y + 2))
        for line, words in enumerate(caption_lines(caption, side // 6)):
            draw.text((x + 2, y + side - 1 + 11 * line), words, fill="black", font_size=10)
    return np.asarray(sheet, np.uint8)


def caption_lines(caption: str, width: int) -> tuple[str, str]:
    """Two lines of at most `width` characters: the identity, and the file without repeating it.

    What is too long loses its middle, since names of one person differ at their end.
    """
    plain = caption.encode("latin-1", "replace").decode("latin-1")
    first, slash, rest = plain.partition("/")
    if not slash:
        return plain[:width], _shortened(plain[width:], width)
    return _shortened(first, width), _shortened(rest.removeprefix(first).lstrip("_") or rest, width)


def _shortened(words: str, width: int) -> str:
    if len(words) <= width:
        return words
    tail = width // 2
    return words[: width - tail - 2] + ".." + words[-tail:]


def as_jpeg(sheet: ByteArray, *, quality: int = 85) -> bytes:
    """Encode a sheet for a page or a file; (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
