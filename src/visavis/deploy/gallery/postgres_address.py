"""Addresses of galleries, `postgresql://USER@HOST/DATABASE?schema=NAME`, and passwords kept out of messages."""

from __future__ import annotations

import re
from urllib.parse import unquote

from visavis.errors import DataError

SCHEMA = "visavis"
_SCHEMES = ("postgresql://", "postgres://")
# At most one @, after a name and a password without @ / ? # : in them; else libpq takes a piece of the password for a
# host or a port and says it aloud.
_ADDRESS = re.compile(r"postgres(?:ql)?://(?:[^:/?#@\s]*(?::[^:/?#@\s]*)?@)?[^@\s]*\Z")


def is_postgres(address: object) -> bool:
    """Whether a gallery's address names a PostgreSQL database rather than a file."""
    return isinstance(address, str) and address.startswith(_SCHEMES)


def has_password(address: str) -> bool:
    """Whether an address carries a password, which everybody on the machine could read in the list of processes."""
    user, _, place = address.partition("://")[2].rpartition("@")
    return ":" in user or re.search(r"[?&](?:ssl)?password=", place) is not None


def without_password(address: str) -> str:
    """An address as it may be shown: `postgresql://user@host:port/database?…`, whatever is wrong with it."""
    scheme, _, rest = address.partition("://")
    # Where the password holds an @ or / that should have been written %40 or %2F, all before the last @ goes.
    user, at, place = rest.rpartition("@")
    place = re.sub(r"((?:^|[?&])(?:ssl)?password=)[^&]*", r"\1***", place)
    return f"{scheme}://{user.split(':')[0]}{at}{place}"


def split_schema(address: str) -> tuple[str, str]:
    """`postgresql://…?schema=NAME` as what libpq understands, and NAME; `visavis` where none is named."""
    place, _, query = address.partition("?")
    words = [word for word in query.split("&") if word]
    names = [unquote(word.partition("=")[2]) for word in words if word.startswith("schema=")]
    rest = "&".join(word for word in words if not word.startswith("schema="))
    return f"{place}?{rest}" if rest else place, names[-1] if names else SCHEMA


def is_readable(address: str) -> bool:
    """Whether libpq will take each part of an address for what it is meant to be."""
    return _ADDRESS.match(address) is not None


def check_argument(address: str) -> None:
    """Refuse a password that was typed on the command line.

    Raises:
        DataError: the address carries one.
    """
    if is_postgres(address) and has_password(address):
        raise DataError(
            f"{without_password(address)}: a password on the command line can be read by everybody here; set "
            "PGPASSWORD or PGPASSFILE, or name a service: postgresql:///?service=NAME"
        )


def without_secrets(text: str) -> str:
    """A message of libpq without what follows `password=` or stands between user and host of an address."""
    text = re.sub(r"(password\s*=\s*)('[^']*'|\S+)", r"\1***", text, flags=re.IGNORECASE)
    return re.sub(r"(postgres(?:ql)?://[^:/@\s]*):\S*@", r"\1@", text)
