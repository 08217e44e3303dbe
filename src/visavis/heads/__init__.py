"""Heads: what turns features and labels into a loss. Adding one = one file and one line in HEADS."""

from __future__ import annotations

import inspect
from typing import Any

from visavis.errors import RecipeError, unknown_name
from visavis.heads.adacos import AdaCos
from visavis.heads.adaface import AdaFace
from visavis.heads.arcface import ArcFace
from visavis.heads.asoftmax import ASoftmax
from visavis.heads.combined import CombinedMargin
from visavis.heads.cosface import CosFace
from visavis.heads.curricularface import CurricularFace
from visavis.heads.elasticface import ElasticArcFace, ElasticCosFace
from visavis.heads.head import Head
from visavis.heads.magface import MagFace
from visavis.heads.mv_softmax import MVSoftmax
from visavis.heads.normface import NormFace
from visavis.heads.softmax import Softmax
from visavis.heads.sphereface2 import SphereFace2
from visavis.heads.sphereface_r import SphereFaceR
from visavis.heads.subcentre import SubCentreArcFace
from visavis.heads.uniface import UniFace

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
