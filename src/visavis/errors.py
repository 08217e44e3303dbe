"""What can go wrong for a user, one class per kind; each message says what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_NAMES = 30


class VisavisError(Exception):
    """Base of every error that is the input's fault; the command line prints it in one line and exits with 2."""


class DataError(VisavisError):
    """A picture, list or data set cannot be read or does not hold what it should."""


class RecipeError(VisavisError):
    """A recipe or an option has an unknown key or an impossible value."""


class ModelFormatError(VisavisError):
    """A checkpoint, model folder or ONNX file is damaged, foreign or contradicts its card."""


class MissingPackageError(VisavisError):
    """What was asked for needs a package that is not installed; the message says what to type."""


class ProtocolError(VisavisError):
    """An evaluation protocol and the data or scores given to it do not fit."""


def unknown_name(kind: str, got: str, valid: Iterable[str]) -> str:
    """Say that `got` is no `kind`, which name is nearest and which there are (the nearest few where there are many)."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(got, names, n=_MOST_NAMES, cutoff=0.3)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    listed = names if len(names) <= _MOST_NAMES else nearest or names[:_MOST_NAMES]
    more = f" ... ({len(names)} in all)" if len(listed) < len(names) else ""
    return f"unknown {kind} {got!r}{hint} valid: {', '.join(listed)}{more}"
