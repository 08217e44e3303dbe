"""Losses by the names a paper gives them: margin losses over classes, the triplet loss. Names load on first use.

    from visavis.losses import ArcFace
    from visavis.losses.triplets import SemiHard, TripletLoss

    loss = ArcFace(num_classes, dim, margin=0.5)       # an nn.Module: its parameters are the class centers
    loss(embeddings, labels)                           # raw embeddings (B, D), labels (B,)

`heads/` holds the formulas alone, `partial_fc/` everything of size batch x classes, `triplets/` miners, pools and loss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis.losses.margin_losses import AdaCos as AdaCos
    from visavis.losses.margin_losses import AdaFace as AdaFace
    from visavis.losses.margin_losses import ArcFace as ArcFace
    from visavis.losses.margin_losses import ASoftmax as ASoftmax
    from visavis.losses.margin_losses import CombinedMargin as CombinedMargin
    from visavis.losses.margin_losses import CosFace as CosFace
    from visavis.losses.margin_losses import CurricularFace as CurricularFace
    from visavis.losses.margin_losses import ElasticArcFace as ElasticArcFace
    from visavis.losses.margin_losses import ElasticCosFace as ElasticCosFace
    from visavis.losses.margin_losses import MagFace as MagFace
    from visavis.losses.margin_losses import MarginLoss as MarginLoss
    from visavis.losses.margin_losses import MVSoftmax as MVSoftmax
    from visavis.losses.margin_losses import NormFace as NormFace
    from visavis.losses.margin_losses import Softmax as Softmax
    from visavis.losses.margin_losses import SphereFace2 as SphereFace2
    from visavis.losses.margin_losses import SphereFaceR as SphereFaceR
    from visavis.losses.margin_losses import SubCenterArcFace as SubCenterArcFace
    from visavis.losses.margin_losses import UniFace as UniFace
    from visavis.losses.partial_fc.margin_softmax import MarginSoftmax as MarginSoftmax
    from visavis.losses.triplets.embedding_miners import TripletLoss as TripletLoss

_HOMES = {
    **dict.fromkeys(
        (
            "ASoftmax",
            "AdaCos",
            "AdaFace",
            "ArcFace",
            "CombinedMargin",
            "CosFace",
            "CurricularFace",
            "ElasticArcFace",
            "ElasticCosFace",
            "MVSoftmax",
            "MagFace",
            "MarginLoss",
            "NormFace",
            "Softmax",
            "SphereFace2",
            "SphereFaceR",
            "SubCenterArcFace",
            "UniFace",
        ),
        "visavis.losses.margin_losses",
    ),
    "MarginSoftmax": "visavis.losses.partial_fc.margin_softmax",
    "TripletLoss": "visavis.losses.triplets.embedding_miners",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'visavis.losses' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
