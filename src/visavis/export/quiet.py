"""What other libraries print or tell the root logger while they work for us, kept from whoever uses this one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

log = logging.getLogger(__name__)
_turn = threading.RLock()  # names are given back in the order they were taken


@contextmanager
def replaced(*modules: ModuleType, **names: Any) -> Iterator[None]:
    """Give modules of others some names of ours while the block runs; the process's own output and loggers stay."""
    missing = object()
    with _turn:
        before = [(module, name, vars(module).get(name, missing)) for module in modules for name in names]
        for module in modules:
            vars(module).update(names)
        try:
            yield
        finally:
            for module, name, value in before:
                if value is missing:
                    delattr(module, name)
                else:
                    setattr(module, name, value)


def told(*words: object, **_: object) -> None:
    """In place of `print`: to our own logger, at DEBUG."""
    log.debug("%s", " ".join(map(str, words)))


root_logger = SimpleNamespace(debug=log.debug, info=log.debug, warning=log.debug, error=log.warning)  # for `logging`
