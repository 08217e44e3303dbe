"""Heads: what turns features and labels into a loss. Adding one = one file and one line in HEADS."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from typing import Any

from visavis.errors import RecipeError, unknown_name
from visavis.losses.head import Head
from visavis.losses.heads.adacos import AdaCosHead
from visavis.losses.heads.adaface import AdaFaceHead
from visavis.losses.heads.arcface import ArcFaceHead
from visavis.losses.heads.asoftmax import ASoftmaxHead
from visavis.losses.heads.combined import CombinedMarginHead
from visavis.losses.heads.cosface import CosFaceHead
from visavis.losses.heads.curricularface import CurricularFaceHead
from visavis.losses.heads.elasticface import ElasticArcFaceHead, ElasticCosFaceHead
from visavis.losses.heads.magface import MagFaceHead
from visavis.losses.heads.mv_softmax import MVSoftmaxHead
from visavis.losses.heads.normface import NormFaceHead
from visavis.losses.heads.softmax import SoftmaxHead
from visavis.losses.heads.sphereface2 import SphereFace2Head
from visavis.losses.heads.sphereface_r import SphereFaceRHead
from visavis.losses.heads.subcenter import SubCenterArcFaceHead
from visavis.losses.heads.uniface import UniFaceHead

log = logging.getLogger(__name__)

HEADS: dict[str, type[Head]] = {
    "softmax": SoftmaxHead,
    "normface": NormFaceHead,
    "asoftmax": ASoftmaxHead,
    "sphereface_r": SphereFaceRHead,
    "sphereface2": SphereFace2Head,
    "cosface": CosFaceHead,
    "arcface": ArcFaceHead,
    "combined": CombinedMarginHead,
    "adacos": AdaCosHead,
    "curricularface": CurricularFaceHead,
    "mv_softmax": MVSoftmaxHead,
    "magface": MagFaceHead,
    "adaface": AdaFaceHead,
    "elastic_arcface": ElasticArcFaceHead,
    "elastic_cosface": ElasticCosFaceHead,
    "uniface": UniFaceHead,
    "subcenter_arcface": SubCenterArcFaceHead,
}


# Names of the release before; they work for one release.
FORMER_NAMES = {"subcentre_arcface": "subcenter_arcface"}
FORMER_ARGUMENTS = {"sub_centres": "sub_centers", "regulariser": "regularizer"}


def head_class(name: str) -> type[Head]:
    """The head of that name, or of the name it bears now.

    Raises:
        RecipeError: no such head; the nearest name is given.
    """
    return HEADS[_present(name, FORMER_NAMES, HEADS, "head")]


def build_head(name: str, **args: Any) -> Head:
    """Build a head by name.

    Raises:
        RecipeError: no such head, no such argument, or a value out of range.
    """
    head = head_class(name)
    known = [key for key in inspect.signature(head.__init__).parameters if key != "self"]
    return head(**{_present(key, FORMER_ARGUMENTS, known, f"argument of head {name!r}"): v for key, v in args.items()})


def _present(name: str, former: dict[str, str], known: Collection[str], what: str) -> str:
    if name in known:
        return name
    if former.get(name) in known:
        log.warning("the %s %s is now called %s; the former name works for one release", what, name, former[name])
        return former[name]
    raise RecipeError(unknown_name(what, name, known))
