"""Whether an audit log is whole: nothing changed, removed, inserted or cut off."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visavis.deploy.server.audit import HEAD
from visavis.deploy.server.audit_chain import Link, read_head, split_line
from visavis.errors import DataError


@dataclass
class AuditCheck:
    """What was found: `findings` are faults, `notes` are not."""

    records: int = 0
    first: str = ""
    last: str = ""
    head: Link = field(default_factory=Link)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_audit(paths: Sequence[Path | str], *, start: int = 1, anchor: Link | None = None) -> AuditCheck:
    """Follow the chain through the files, oldest first.

    Args:
        paths: the log, after the files it was rotated to.
        start: number of the first record, when older files are no more.
        anchor: a number and digest kept elsewhere, which must be in the chain.

    Raises:
        DataError: a file cannot be read.
    """
    done = AuditCheck(head=Link(start - 1, "" if start > 1 else Link().digest))
    remembered = _remembered(Path(f"{paths[-1]}{HEAD}"))  # read first: a service may go on writing
    if remembered is None:
        done.notes.append(f"{paths[-1]}{HEAD} cannot be read: records cut off at the end would not show")
    wanted = {link for link in (remembered, anchor) if link is not None and link.number}
    for path in paths:
        try:
            with open(path, "rb") as file:
                for position, line in enumerate(file, 1):
                    wanted.discard(_follow(done, f"{path}:{position}", line) or Link())
        except OSError as error:
            raise DataError(f"{path}: cannot read the audit log ({error.strerror})") from error
    for link in sorted(wanted, key=lambda link: link.number):
        cut = f"; the log ends with record {done.head.number}" if link.number > done.head.number else ""
        done.findings.append(f"record {link.number} with digest {link.digest[:16]} is not in the log{cut}")
    return done


def _follow(done: AuditCheck, where: str, line: bytes) -> Link | None:
    parts = split_line(line.removesuffix(b"\n"))
    if parts is None:
        if not done.records and line.startswith(b"{") and b'"digest"' not in line and b'"previous"' not in line:
            done.notes.append(f"{where} is of a release that did not chain; it may have been changed")
        else:
            done.findings.append(f"{where} is no record; it was changed, or cut off by a crash")
        return None
    record, link, digest = parts
    expected = done.head.number + 1
    if digest != link.digest:
        done.findings.append(f"{where} (record {link.number}) was changed: its digest does not fit")
    elif link.number > expected:
        missing = (
            f"record {expected} is" if link.number == expected + 1 else f"records {expected} to {link.number - 1} are"
        )
        done.findings.append(f"{missing} missing before {where}")
    elif link.number < expected:
        done.findings.append(f"{where} is record {link.number}, expected {expected}: inserted, repeated or moved")
    elif done.head.digest and record.get("previous") != done.head.digest:
        done.findings.append(f"{where} (record {link.number}) does not follow the record before it, which was replaced")
    done.records += 1
    done.first = done.first or str(record.get("time", ""))
    done.last = str(record.get("time", ""))
    done.head = link
    return link


def _remembered(path: Path) -> Link | None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return read_head(handle)
    finally:
        os.close(handle)
