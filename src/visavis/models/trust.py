"""Whose code may be run: a model folder is data, and the Python a card names is imported only if the user says so."""

from __future__ import annotations

from visavis.errors import ModelFormatError

_trusted: set[str] = set()
_ANY = "*"


def trust_code(backbone: str = _ANY) -> None:
    """From here on, cards loaded by this process may have `backbone`, a `module:callable`, imported; any, if left out.

    A module's code runs as the user does when it is imported.
    """
    _trusted.add(backbone)


def check_trusted(backbone: str, where: object) -> None:
    """Refuse a card that names code nobody vouched for.

    Raises:
        ModelFormatError: says what to type.
    """
    if ":" in backbone and not _trusted & {backbone, _ANY}:
        raise ModelFormatError(
            f"{where}: names Python code of its own, {backbone}, which is not imported unasked, since it could do "
            "anything; if you trust its author, add --trust-code (in Python: visavis.models.trust.trust_code())"
        )
