"""Roles, and the tokens that carry them: from the environment, or a file that is read again when it changes."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, final, get_args

from visavis.errors import DataError, unknown_name

log = logging.getLogger(__name__)

# From least to most; each may do what those before it may.
Role = Literal["match", "read", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
VARIABLES: dict[str, Role] = {
    "VISAVIS_MATCH_TOKEN": "match",
    "VISAVIS_READ_TOKEN": "read",
    "VISAVIS_WRITE_TOKEN": "write",
    "VISAVIS_TOKEN": "write",
    "VISAVIS_ADMIN_TOKEN": "admin",
}
MIN_LENGTH = 16
HOW_TO = "make one with: export VISAVIS_TOKEN=$(openssl rand -hex 24)"


def may(role: Role, needs: Role) -> bool:
    """Whether a role is enough."""
    return ROLES.index(role) >= ROLES.index(needs)


def tokens_from_environment() -> dict[str, Role]:
    """Token -> role, of the variables in `VARIABLES`; several tokens of one are separated by commas.

    Raises:
        DataError: a token shorter than 16 characters, which could be guessed, or of two roles.
    """
    return _tokens(
        (variable, token.strip(), role)
        for variable, role in VARIABLES.items()
        for token in os.environ.get(variable, "").split(",")
        if token.strip()
    )


def read_token_file(path: Path) -> dict[str, Role]:
    """Token -> role, of a file with `ROLE TOKEN [what it is for]` a line; `#` begins a comment.

    Raises:
        DataError: unreadable, without a token, or with a line that is none; the message holds no token.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the tokens ({getattr(error, 'strerror', 'not UTF-8')})") from error
    found: list[tuple[str, str, Role]] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}:{number}"
        if len(words) < 2:
            raise DataError(f"{where}: expected: ROLE TOKEN [what it is for], with a role of {', '.join(ROLES)}")
        if words[0] not in ROLES:
            said = unknown_name("role", words[0], ROLES) if len(words[0]) < MIN_LENGTH else "expected: ROLE TOKEN"
            raise DataError(f"{where}: {said}")  # a long word may be a token: it is not repeated
        role = ROLES[ROLES.index(words[0])]
        found.append((where, words[1], role))
    if not found:
        raise DataError(f"{path}: holds no token; a line is: ROLE TOKEN [what it is for]")
    return _tokens(found)


def _tokens(found: Iterable[tuple[str, str, Role]]) -> dict[str, Role]:
    tokens: dict[str, Role] = {}
    for where, token, role in found:
        if len(token) < MIN_LENGTH:
            raise DataError(f"{where}: a token must have at least {MIN_LENGTH} characters; {HOW_TO}")
        if tokens.get(token, role) != role:
            raise DataError(f"{where}: one token is given two roles, {tokens[token]} and {role}")
        tokens[token] = role
    return tokens


def token_digest(token: str) -> str:
    """What is remembered of a token: SHA-256 in hexadecimal digits; the audit log shows the first eight."""
    return hashlib.sha256(token.encode()).hexdigest()


@final
class TokenRegistry:
    """The roles of tokens; a file is read again as soon as it changes.

    A file that became unreadable, empty or wrong changes nothing: the tokens read last stay, and the log says so once.

    `sound` says whether what was read last is what the file holds.

    Args:
        tokens: token -> role, valid as long as the service runs.
        file: see `read_token_file`.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, tokens: Mapping[str, Role], file: Path | None = None) -> None:
        self._fixed: dict[str, Role] = {token_digest(token): role for token, role in tokens.items()}
        self._file = file
        self._version: tuple[int, ...] | None = None
        self._roles: dict[str, Role] = dict(self._fixed)
        self.sound = True
        if file is not None:
            self._version = _version(file)
            self._roles |= self._read(file)
            if self._version is not None and stat.S_IMODE(file.stat().st_mode) & 0o007:
                log.warning("%s can be read by everybody on this machine; type: chmod 600 %s", file, file)

    @property
    def needed(self) -> bool:
        """Whether a request wants a token at all."""
        return bool(self._roles) or self._file is not None

    def role_of(self, token: str) -> Role | None:
        """The role of a token, None for one nobody gave out."""
        if self._file is not None and (version := _version(self._file)) != self._version:
            self._version = version
            try:
                self._roles = {**self._fixed, **self._read(self._file)}
                self.sound = True
                log.info("%s was read again: %d tokens", self._file, len(self._roles))
            except DataError as error:
                self.sound = False
                log.error("the tokens stay as they were: %s", error)
        return self._roles.get(token_digest(token))

    def _read(self, file: Path) -> dict[str, Role]:
        roles: dict[str, Role] = {token_digest(token): role for token, role in read_token_file(file).items()}
        if any(self._fixed.get(digest, role) != role for digest, role in roles.items()):
            raise DataError(f"{file}: one token is given two roles, here and in the environment")
        return roles


def _version(file: Path) -> tuple[int, ...] | None:
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino
