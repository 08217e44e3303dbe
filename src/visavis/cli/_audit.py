"""What the verbs that touch a gallery write to the audit log: --audit FILE, or VISAVIS_AUDIT."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from visavis.machine import user_name

VARIABLE = "VISAVIS_AUDIT"
_MOST = 1000


def add_audit(parser: argparse.ArgumentParser) -> None:
    """The option."""
    parser.add_argument(
        "--audit",
        metavar="FILE",
        help=f"append what is done to this audit log (or set {VARIABLE}); no names or pictures",
    )


def audit_file(args: argparse.Namespace) -> str | None:
    """The log asked for."""
    return args.audit or os.environ.get(VARIABLE) or None


@contextmanager
def audited(args: argparse.Namespace, event: str, *, changes: bool = False) -> Iterator[dict[str, Any]]:
    """Write an event when the block is done or has failed; its further fields are put into the dictionary given.

    Args:
        args: of a parser with `add_audit`, with `gallery`.
        event: what is done.
        changes: whether the gallery may change; then the log is written before, too.

    Raises:
        AuditError: the log cannot be written; nothing has been done, unless it failed only afterwards.
    """
    path = audit_file(args)
    about: dict[str, Any] = {}
    if path is None:
        yield about
        return
    from visavis.deploy.server.audit import AuditLog

    log = AuditLog(path)
    who: dict[str, Any] = {"client": f"cli:{user_name()}", "gallery": _place(args.gallery)}
    try:
        if changes:
            log.write(event, keep=False, phase="begins", **who)
        try:
            yield about
        except BaseException as error:
            about["failed"] = type(error).__name__
            raise
        finally:
            log.write(event, durable=changes, **who, **about)
    finally:
        log.close()


def _place(address: str) -> str:
    from visavis.deploy.gallery.postgres_address import is_postgres, without_password

    return without_password(address) if is_postgres(address) else os.path.abspath(address)


def subject_ids(values: Any) -> list[int]:
    """The numbers of the subjects that an answer tells of."""
    if isinstance(values, dict):
        own = [values["id"]] if isinstance(values.get("id"), int) else []
        return own + [number for value in values.values() for number in subject_ids(value)]
    if isinstance(values, list | tuple):
        return [number for value in values for number in subject_ids(value)]
    return []


def tell_subjects(about: dict[str, Any], numbers: Iterable[int]) -> None:
    """Put subjects into an event: how many, and the numbers of the first thousand."""
    every = sorted(set(numbers))
    about |= {"count": len(every), "subjects": every[:_MOST]}
