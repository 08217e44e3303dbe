"""visavis: prepare faces, train a recognizer, prove how good it is, ship it. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visavis._moved import install

__version__ = "0.1.0"
install()

if TYPE_CHECKING:
    from visavis.deploy.client import Client as Client
    from visavis.deploy.gallery.sqlite import Gallery as Gallery
    from visavis.deploy.recognizer import Recognizer as Recognizer
    from visavis.errors import VisavisError as VisavisError
    from visavis.models.card import ModelCard as ModelCard
    from visavis.models.load import load_embedder as load_embedder
    from visavis.types import Embedder as Embedder
    from visavis.vision.preprocessing import PreprocessSpec as PreprocessSpec

_HOMES = {
    "Client": "visavis.deploy.client",
    "Gallery": "visavis.deploy.gallery.sqlite",
    "Recognizer": "visavis.deploy.recognizer",
    "Embedder": "visavis.types",
    "ModelCard": "visavis.models.card",
    "PreprocessSpec": "visavis.vision.preprocessing",
    "VisavisError": "visavis.errors",
    "load_embedder": "visavis.models.load",
}
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'visavis' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
