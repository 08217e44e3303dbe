"""A weighted semaphore: how much of something all requests together may hold, first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

from starlette.exceptions import HTTPException


@final
class Budget:
    """`limit` of a unit, such as pixels or bytes, shared by requests; used on one event loop.

    Args:
        limit: what all may hold together; a request that wants more than all gets all.
        waiting: so many requests may wait; the next is turned away.
    """

    def __init__(self, limit: int, *, waiting: int) -> None:
        self.limit = limit
        self.held = 0
        self._waiting = waiting
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, amount: int) -> AsyncGenerator[None, None]:
        """Hold so much of it for a while.

        Raises:
            HTTPException: 503, too many wait already.
        """
        amount = min(max(0, amount), self.limit)
        if not amount:  # has nothing to wait for
            yield
            return
        if self._queue or self.held + amount > self.limit:
            if len(self._queue) >= self._waiting:
                raise HTTPException(503, "too many requests are waiting; try again", {"Retry-After": "1"})
            await self._turn(amount)
        else:
            self.held += amount
        try:
            yield
        finally:
            self._give(amount)

    async def _turn(self, amount: int) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((amount, ready))
        try:
            await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self._give(amount)
            else:
                self._queue.remove((amount, ready))
                self._call()
            raise

    def _give(self, amount: int) -> None:
        self.held -= amount
        self._call()

    def _call(self) -> None:
        """Let those in front of the queue in as far as they fit."""
        while self._queue and self.held + self._queue[0][0] <= self.limit:
            amount, ready = self._queue.popleft()
            if not ready.done():
                self.held += amount
                ready.set_result(None)
