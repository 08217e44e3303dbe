"""Heads: what turns features and labels into a loss. Adding one = one file and one line in HEADS."""

from __future__ import annotations

import inspect
from typing import Any

from visavis.errors import RecipeError, unknown_name
from visavis.losses.head import Head
from visavis.losses.heads.adacos import AdaCos
from visavis.losses.heads.adaface import AdaFace
from visavis.losses.heads.arcface import ArcFace
from visavis.losses.heads.asoftmax import ASoftmax
from visavis.losses.heads.combined import CombinedMargin
from visavis.losses.heads.cosface import CosFace
from visavis.losses.heads.curricularface import CurricularFace
from visavis.losses.heads.elasticface import ElasticArcFace, ElasticCosFace
from visavis.losses.heads.magface import MagFace
from visavis.losses.heads.mv_softmax import MVSoftmax
from visavis.losses.heads.normface import NormFace
from visavis.losses.heads.softmax import Softmax
from visavis.losses.heads.sphereface2 import SphereFace2
from visavis.losses.heads.sphereface_r import SphereFaceR
from visavis.losses.heads.subcenter import SubCentreArcFace
from visavis.losses.heads.uniface import UniFace

HEADS: dict[str, type[Head]] = {
    "softmax": Softmax,
    "normface": NormFace,
    "asoftmax": ASoftmax,
    "sphereface_r": SphereFaceR,
    "sphereface2": SphereFace2,
    "cosface": CosFace,
    "arcface": ArcFace,
    "combined": CombinedMargin,
    "adacos": AdaCos,
    "curricularface": CurricularFace,
    "mv_softmax": MVSoftmax,
    "magface": MagFace,
    "adaface": AdaFace,
    "elastic_arcface": ElasticArcFace,
    "elastic_cosface": ElasticCosFace,
    "uniface": UniFace,
    "subcentre_arcface": SubCentreArcFace,
}


def build_head(name: str, **args: Any) -> Head:
    """Build a head by name.

    Raises:
        RecipeError: no such head, no such argument, or a value out of range.
    """
    if name not in HEADS:
        raise RecipeError(unknown_name("head", name, HEADS))
    known = [key for key in inspect.signature(HEADS[name].__init__).parameters if key != "self"]
    for key in args:
        if key not in known:
            raise RecipeError(unknown_name(f"argument of head {name!r}", key, known))
    return HEADS[name](**args)
