"""The people a model can recognize: contract, SQLite and PostgreSQL, index, erasure. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis.deploy.gallery.postgres import PgGallery as PgGallery
    from visavis.deploy.gallery.sqlite import Gallery as Gallery

_HOMES = {"Gallery": "visavis.deploy.gallery.sqlite", "PgGallery": "visavis.deploy.gallery.postgres"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)
