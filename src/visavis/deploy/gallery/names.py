"""Names of people: what may stand in one, and when two are the same."""

from __future__ import annotations

import unicodedata

from visavis.errors import DataError

MAX_NAME = 200
MAX_NOTE = 4000
# Characters that turn the direction of what follows: with them a name shows as another than it is (UTR 36).
_BIDI = {0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
# Of the characters without a picture (Default_Ignorable_Code_Point, UCD) those that are not of category Cf.
_UNSEEN = {
    0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2800, 0x3164, *range(0xFE00, 0xFE10), 0xFFA0,
    *range(0xE0100, 0xE01F0),
}  # fmt: skip


def clean_name(name: str) -> str:
    """A subject's name in Unicode form NFC without surrounding space.

    Raises:
        DataError: empty, longer than 200 characters, nothing to be seen, control or direction characters.
    """
    tidy = _tidy(name, "a subject's name")
    if not tidy or len(tidy) > MAX_NAME:
        raise DataError(f"a subject's name has 1 to {MAX_NAME} characters, got {len(tidy)}")
    if not name_key(tidy):
        raise DataError("a subject's name holds something to be seen, got only characters without a picture")
    return tidy


def clean_note(note: str) -> str:
    """A consent note in form NFC; it may have several lines.

    Raises:
        DataError: longer than 4000 characters, control or direction characters.
    """
    tidy = _tidy(note, "a note", allowed="\n\r\t")
    if len(tidy) > MAX_NOTE:
        raise DataError(f"a note has at most {MAX_NOTE} characters, got {len(tidy)}")
    return tidy


def name_key(name: str) -> str:
    """What two names that look the same have in common: NFC, no characters without a picture, every space alike."""
    if name.isascii() and name.isprintable():
        return " ".join(name.split())
    seen = "".join(
        c
        for c in unicodedata.normalize("NFC", name)
        if unicodedata.category(c) not in ("Cf", "Cc") and ord(c) not in _UNSEEN
    )
    return " ".join(unicodedata.normalize("NFC", seen).split())


def _tidy(text: str, what: str, allowed: str = "") -> str:
    if text.isascii() and text.isprintable():
        return text.strip()
    try:
        tidy = unicodedata.normalize("NFC", text).strip()
        tidy.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{what} must be valid Unicode, got half a surrogate pair") from error
    bad = sorted(
        {
            f"U+{ord(c):04X}"
            for c in tidy
            if c not in allowed and (unicodedata.category(c) in ("Cc", "Co", "Cn", "Zl", "Zp") or ord(c) in _BIDI)
        }
    )
    if bad:
        raise DataError(f"{what} holds no control characters and none that turn its direction, got {', '.join(bad)}")
    return tidy
