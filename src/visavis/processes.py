"""Work shared by processes: results in order, few tasks in flight, one line when a process dies."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from visavis.errors import DataError
from visavis.machine import interrupts_held

Task = TypeVar("Task")
Result = TypeVar("Result")
_IN_FLIGHT = 4  # chunks a process
DIED = "a worker process ended unexpectedly (out of memory?); {advice}"


class ProcessPool:
    """What `process_pool` gives."""

    def __init__(self, executor: ProcessPoolExecutor | None, work: Callable[[Any], Any] | None, workers: int) -> None:
        self._executor, self._work, self._workers = executor, work, workers

    def map(self, tasks: Iterable[Any], *, chunk: int = 1) -> Iterator[Any]:
        """The result of each task, in the order of the tasks; `chunk` of them travel to a process together."""
        if self._executor is None:
            assert self._work is not None
            yield from map(self._work, tasks)
            return
        pending: deque[Future[list[Any]]] = deque()
        rest = iter(tasks)
        while part := list(islice(rest, chunk)):
            with interrupts_held():  # a process may be begun here; while it imports it could not keep still
                pending.append(self._executor.submit(_run, part))
            if len(pending) > _IN_FLIGHT * self._workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


@contextmanager
def process_pool(
    make: Callable[..., Callable[[Task], Result]],
    *arguments: Any,
    workers: int,
    advice: str = "try --workers 1",
) -> Generator[ProcessPool]:
    """Processes that each hold `make(*arguments)`, a function of a task; with up to 1 worker this process works.

    They are spawned, not forked (the caller may hold threads that a fork would leave locked), use one thread of OpenCV,
    and leave Ctrl-C to the caller, who lets go of what is not done yet.

    Args:
        make: a function or class of a module; what it makes stays in its process.
        arguments: what every process makes it of; pickled.
        workers: processes.
        advice: what to do when a process dies.

    Raises:
        DataError: a process died.
    """
    if workers <= 1:
        yield ProcessPool(None, make(*arguments), 1)
        return
    executor = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(make, arguments)
    )
    try:
        yield ProcessPool(executor, None, workers)
    except BrokenProcessPool as error:
        raise DataError(DIED.format(advice=advice)) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_work: Callable[[Any], Any] | None = None


def _begin(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    global _work
    from visavis.opencv import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _work = make(*arguments)


def _run(tasks: list[Any]) -> list[Any]:
    assert _work is not None
    return [_work(task) for task in tasks]
