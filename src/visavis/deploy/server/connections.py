"""Connections within limits: how many, how long a request's head may take, and no waiting for full segments."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from visavis.deploy.server.guard import SAFE_HEADERS

log = logging.getLogger(__name__)
HEAD_SECONDS = 10.0
READ_SECONDS = 60.0  # for a client to take what it asked for
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_SAY_AGAIN = 10.0


class BoundedConnection(H11Protocol):
    """uvicorn's connection with limits; `most` are open at a time.

    A new one beyond that takes the place of the one that has longest not sent a whole request, so that half-open
    connections lock nobody out; where every other is being answered, the new one is told to come again.
    """

    def __init__(self, *args: Any, most: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._most = most
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self.waits_since = self.loop.time()

    @property
    def waits(self) -> bool:
        """Whether nothing is owed to the other side: it has not sent a request, or not all of one."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A listener that was made without a protocol number leaves Nagle's algorithm on: 40 ms an answer."""
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._make_room()
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered; it has a minute to go on."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It went on."""
        self._stop_reading()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_timer()
        self._stop_reading()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """What uvicorn does, and begin to wait again."""
        self.waits_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP, as plain and guarded as every other."""
        self._say(b"400 Bad Request", msg)

    def _watch_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_reading(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _make_room(self) -> None:
        others = [c for c in self.connections if c is not self and isinstance(c, BoundedConnection) and c.waits]
        if others:
            oldest = min(others, key=lambda c: c.waits_since)
            self.connections.discard(oldest)
            oldest.transport.abort()
        else:
            self._say(b"503 Service Unavailable", "too many connections; try again", b"retry-after: 1\r\n")

    def _say(self, status: bytes, text: str, more: bytes = b"") -> None:
        body = json.dumps({"error": text}).encode()
        head = b"".join(name + b": " + value + b"\r\n" for name, value in SAFE_HEADERS)
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s%s\r\n%s"
            % (status, len(body), more, head, body)
        )
        self.transport.close()


def say_once_when_out_of_files(loop: asyncio.AbstractEventLoop) -> None:
    """One line every 10 s, where asyncio writes a traceback for each connection it cannot accept."""
    said = -_SAY_AGAIN

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _OUT_OF_FILES):
            loop.default_exception_handler(context)
        elif time.monotonic() - said > _SAY_AGAIN:
            said = time.monotonic()
            log.error("no file is left for a new connection; raise `ulimit -n`")

    loop.set_exception_handler(handle)
