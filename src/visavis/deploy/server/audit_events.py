"""Which requests are events of the audit log, and who asked."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from starlette.types import Scope

from visavis.deploy.server.request_ids import request_id

# What a request to a route is about, by the route's name.
EVENTS = {
    "verify": "verify",
    "identify": "identify",
    "enroll": "enroll",
    "embed": "embed",
    "subjects": "list",
    "subject": "look",
    "crop": "look at face",
    "change": "change",
    "merge": "merge",
    "delete": "forget",
    "forget": "forget",
    "audit": "look at audit",
}
REFUSALS = (401, 403, 421, 429)
DURABLE = ("enroll", "change", "merge", "forget")


def who(scope: Scope) -> dict[str, Any]:
    """Who asks: the request's name, the token's short name or the address, the address, the role."""
    state, address = scope.get("state", {}), (scope.get("client") or ("unknown",))[0]
    return {
        "request": request_id(scope),
        "client": state.get("client_name", address),
        "address": address,
        "role": state.get("role"),
    }


class RefusalBudget:
    """How many refusals of one address are written in a minute; others are counted, or anybody could fill the disk."""

    def __init__(self, per_minute: int = 60, *, addresses: int = 10_000) -> None:
        self._per_minute, self._addresses = per_minute, addresses
        self._seen: OrderedDict[str, list[int]] = OrderedDict()  # address -> minute, written, left out

    def take(self, address: str) -> int | None:
        """How many were left out since the last one written; None to leave this one out, too."""
        minute = int(time.monotonic() // 60)
        entry = self._seen.setdefault(address, [minute, 0, 0])
        self._seen.move_to_end(address)
        if entry[0] != minute:
            entry[:2] = minute, 0
        if entry[1] >= self._per_minute:
            entry[2] += 1
            return None
        entry[1] += 1
        left_out, entry[2] = entry[2], 0
        return left_out

    def rest(self, *, everything: bool = False) -> Iterator[tuple[str, int]]:
        """Addresses and counts left out of minutes that are over, each said once; old addresses are let go."""
        minute = int(time.monotonic() // 60)
        for address, entry in list(self._seen.items()):
            if everything or entry[0] != minute or len(self._seen) > self._addresses:
                del self._seen[address]
                if entry[2]:
                    yield address, entry[2]
