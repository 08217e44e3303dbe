"""How long subjects are kept, and what was agreed with them: neither is ever loosened by the way."""

from __future__ import annotations

import math
from collections.abc import Iterable

from visavis.errors import DataError

DAY = 86_400.0  # seconds
MAX_DAYS = 36_500.0


def checked_days(days: float) -> float:
    """A retention period in days, above 0 and at most 36,500.

    Raises:
        DataError: not a number, not finite, not positive, or more than a century: a date no calendar would show.
    """
    try:
        value = math.nan if isinstance(days, bool) else float(days)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value <= MAX_DAYS:  # NaN compares false
        raise DataError(
            f"a retention period is more than 0 and at most {MAX_DAYS:g} days, got {days}; leave it out to keep the "
            "limit there is"
        )
    return value


def earliest(ends: Iterable[float | None]) -> float | None:
    """The end that comes first; None (without limit) only when none has an end."""
    return min((end for end in ends if end is not None), default=None)


def joined_notes(notes: Iterable[str]) -> str:
    """Consent notes as one, each once, in order."""
    return "; ".join(dict.fromkeys(note.strip() for note in notes if note.strip()))
