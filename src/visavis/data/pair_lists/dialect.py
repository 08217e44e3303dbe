"""The dialects of pairs.txt: which picture `name n` means, and what separates the fields of a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from visavis.data.text import bad_line, relative
from visavis.errors import DataError
from visavis.vision.images import EXTENSIONS, is_image_path

Separator = Literal["auto", "tab", "blank", "comma", "semicolon"]
Row = tuple[str, str, bool]
_EXPECTED = "`name n1 n2`, `name1 n1 name2 n2`, `path1 path2 0|1` or `0|1 path1 path2`"
_CHARACTERS = {"tab": "\t", "comma": ",", "semicolon": ";"}
_MOST_DIGITS = 12


@dataclass(frozen=True)
class Dialect:
    """How a pair list is written.

    `name n` means the picture `name/name_n.ext` with n padded by zeros to `digits` (0: not padded) and `extension`.
    `separator` auto takes TABs where a line has one, else blanks. `folds` is into how many folds a list without a
    header is cut, genuine and impostor pairs alike.

    Raises:
        DataError: an extension that is no picture's, or a number out of range.
    """

    extension: str = ".jpg"
    digits: int = 4
    separator: Separator = "auto"
    folds: int = 10

    def __post_init__(self) -> None:
        if not self.extension.startswith("."):
            object.__setattr__(self, "extension", "." + self.extension)
        if self.extension.lower() not in EXTENSIONS:
            raise DataError(f"pairs: expected the extension of a picture ({', '.join(sorted(EXTENSIONS))}), "
                            f"got {self.extension!r}")  # fmt: skip
        if not 0 <= self.digits <= _MOST_DIGITS:
            raise DataError(f"pairs: a number has 0 … {_MOST_DIGITS} digits, got {self.digits} (LFW's have 4)")
        if self.separator not in get_args(Separator):
            raise DataError(f"pairs: the separator is one of {', '.join(get_args(Separator))}, got {self.separator!r}")
        if self.folds < 1:
            raise DataError(f"pairs: the number of folds must be at least 1, got {self.folds}")

    def split(self, line: str) -> tuple[list[str], bool]:
        """A line's fields, and whether names may hold the blanks that separate them."""
        line = line.strip("\r\n")
        character = _CHARACTERS.get(self.separator) or (
            "\t" if self.separator == "auto" and "\t" in line.strip() else ""
        )
        if character:
            return [field.strip() for field in line.strip(" " if character == "\t" else None).split(character)], False
        return line.split(), True

    def header(self, line: str) -> tuple[int, int] | None:
        """`folds size` or `size` of a first line; None when it is no header."""
        fields, _ = self.split(line)
        fields = [field for field in fields if field]
        if not fields or len(fields) > 2 or not all(is_number(field) for field in fields):
            return None
        count, size = (1, int(fields[0])) if len(fields) == 1 else (int(fields[0]), int(fields[1]))
        return (count, size) if count and size else None

    def row(self, path: str, number: int, line: str) -> Row:
        """The two pictures of a line and whether they show one person.

        Raises:
            DataError: no line of a pair list, or one that can be read in several ways; names path and line.
        """
        fields, joined = self.split(line)
        if len(fields) == 3 and fields[2] in ("0", "1", "-1") and is_image_path(fields[0]) and is_image_path(fields[1]):
            return relative(path, number, fields[0]), relative(path, number, fields[1]), fields[2] == "1"
        if len(fields) == 3 and fields[0] in ("0", "1") and is_image_path(fields[1]) and is_image_path(fields[2]):
            return relative(path, number, fields[1]), relative(path, number, fields[2]), fields[0] == "1"
        found = list(_readings(fields, joined=joined))
        if len(found) != 1:
            raise bad_line(path, number, _EXPECTED + _hint(line, len(found)), line)
        name1, n1, name2, n2 = found[0]
        return self._image(path, number, name1, n1), self._image(path, number, name2, n2), name1 == name2

    def _image(self, path: str, number: int, name: str, which: str) -> str:
        if not name or name in (".", "..") or "/" in name or "\\" in name:
            raise bad_line(path, number, "a name that is a folder's", name)
        return f"{name}/{name}_{int(which):0{self.digits}d}{self.extension}"


def _hint(line: str, readings: int) -> str:
    if readings:
        return " (several readings are possible: separate the fields by TABs)"
    named = next((name for name, character in _CHARACTERS.items() if line.count(character) in (2, 3)), "")
    return f" (or choose its separator: --pairs-separator {named})" if named in ("comma", "semicolon") else ""


def _readings(fields: list[str], *, joined: bool) -> Iterator[tuple[str, str, str, str]]:
    """Every way to read a line's fields; blanks inside names are only joined where blanks separate."""
    if len(fields) == 3 and is_number(fields[1]) and is_number(fields[2]):
        yield fields[0], fields[1], fields[0], fields[2]
    elif len(fields) == 4 and is_number(fields[1]) and is_number(fields[3]):
        yield fields[0], fields[1], fields[2], fields[3]
    elif joined and len(fields) >= 4 and is_number(fields[-1]):
        if is_number(fields[-2]):
            name = " ".join(fields[:-2])
            yield name, fields[-2], name, fields[-1]
        for cut in range(1, len(fields) - 2):
            if is_number(fields[cut]):
                yield " ".join(fields[:cut]), fields[cut], " ".join(fields[cut + 1 : -1]), fields[-1]


def is_number(field: str) -> bool:
    """Whether a field is a number of a list: ASCII digits, few enough."""
    return field.isascii() and field.isdigit() and len(field) <= 9
