"""Whether the licenses a card states allow a use; `--require-license commercial` refuses a model they do not."""

from __future__ import annotations

import logging
import re

from visavis.errors import ModelFormatError, RecipeError, unknown_name
from visavis.models.card import ModelCard

log = logging.getLogger(__name__)
USES = ("commercial",)
# SPDX identifiers of licenses that allow commercial use of what they cover, under conditions at most.
COMMERCIAL = frozenset(
    {
        "0BSD", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CC-BY-3.0",
        "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "EPL-2.0", "ISC",
        "MIT", "MIT-0", "MPL-2.0", "ODC-By-1.0", "PDDL-1.0", "Unlicense", "WTFPL", "Zlib",
    }
)  # fmt: skip
_required: set[str] = set()


def require_license(use: str) -> None:
    """From here on, this process loads only models whose licenses allow `use`, one of `USES`.

    Raises:
        RecipeError: another use.
    """
    if use not in USES:
        raise RecipeError(unknown_name("use", use, USES))
    _required.add(use)


def allows_commercial_use(expression: str) -> bool:
    """Whether an SPDX expression of names, AND and OR allows commercial use; words that are no such name do not."""
    return any(
        all(name.strip(" ()") in COMMERCIAL for name in re.split(r"\bAND\b", choice))
        for choice in re.split(r"\bOR\b", expression)
    )


def check_license(card: ModelCard | None, where: object) -> None:
    """Refuse a model whose code or weights may not be used as `require_license` demands.

    What its training data allow and what the people pictured agreed to is no license of the model; it is said.

    Raises:
        ModelFormatError: says which of the licenses, and what it is.
    """
    if not _required or card is None:
        return
    terms = card.license
    for part, stated in (("code", terms.code), ("weights", terms.weights)):
        if not allows_commercial_use(stated):
            raise ModelFormatError(
                f"{where}: --require-license commercial: the license of its {part} is {stated!r}, which is none that "
                "is known to allow commercial use"
            )
    log.info(
        "%s: code %s and weights %s allow commercial use; training data: %s; consent: %s",
        card.name,
        terms.code,
        terms.weights,
        terms.training_data,
        terms.consent,
    )
