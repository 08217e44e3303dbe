"""Each head as a loss for anybody's loop: `loss = ArcFace(num_classes, dim, margin=0.5); loss(embeddings, labels)`."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from visavis.errors import RecipeError, unknown_name
from visavis.losses import heads
from visavis.losses.head import Head
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax


class MarginLoss(MarginSoftmax):
    """Mean loss of raw embeddings (B, D) with labels (B,) int64 over all classes; the class centers are its parameters.

    A subclass names its head; its arguments are those of the head and of `MarginSoftmax`, by keyword: `sample_rate`
    below 1 is Partial FC, `sub_centers`, `label_smoothing`, `sparse`, `seed` and the rest mean what they mean there.
    Under an initialized torch.distributed the classes are split over the ranks and the batches gathered: wrap the
    network in DistributedDataParallel, not the loss. Give the loss's parameters to the optimizer beside the network's.

    Args:
        num_classes: C ≥ 1.
        dim: D, length of an embedding.
        **arguments: of the head and of MarginSoftmax.

    Raises:
        RecipeError: an argument that neither has, or a value out of range.
    """

    head_class: ClassVar[type[Head]]

    def __init__(self, num_classes: int, dim: int, **arguments: Any) -> None:
        of_head, of_loss = _keywords(self.head_class), _keywords(MarginSoftmax)
        for name in arguments:
            if name not in of_head and name not in of_loss:
                raise RecipeError(unknown_name(f"argument of {type(self).__name__}", name, [*of_head, *of_loss]))
        head = self.head_class(**{k: v for k, v in arguments.items() if k in of_head})
        rest = {k: v for k, v in arguments.items() if k in of_loss}  # a seed is both's
        super().__init__(head, num_classes=num_classes, dim=dim, **rest)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        of_head = _keywords(cls.head_class)
        of_loss = {k: v for k, v in _keywords(MarginSoftmax).items() if k not in of_head}
        first = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("num_classes", "dim")]
        cls.__signature__ = inspect.Signature([*first, *of_head.values(), *of_loss.values()])  # pyright: ignore[reportAttributeAccessIssue]


def _keywords(cls: type) -> dict[str, inspect.Parameter]:
    known = inspect.signature(cls.__init__).parameters
    return {name: p for name, p in known.items() if name not in ("self", "head", "num_classes", "dim")}


class Softmax(MarginLoss):
    """The loss of `heads.SoftmaxHead`."""

    head_class = heads.SoftmaxHead


class NormFace(MarginLoss):
    """The loss of `heads.NormFaceHead`."""

    head_class = heads.NormFaceHead


class ASoftmax(MarginLoss):
    """The loss of `heads.ASoftmaxHead`."""

    head_class = heads.ASoftmaxHead


class SphereFaceR(MarginLoss):
    """The loss of `heads.SphereFaceRHead`."""

    head_class = heads.SphereFaceRHead


class SphereFace2(MarginLoss):
    """The loss of `heads.SphereFace2Head`."""

    head_class = heads.SphereFace2Head


class CosFace(MarginLoss):
    """The loss of `heads.CosFaceHead`."""

    head_class = heads.CosFaceHead


class ArcFace(MarginLoss):
    """The loss of `heads.ArcFaceHead`."""

    head_class = heads.ArcFaceHead


class CombinedMargin(MarginLoss):
    """The loss of `heads.CombinedMarginHead`."""

    head_class = heads.CombinedMarginHead


class AdaCos(MarginLoss):
    """The loss of `heads.AdaCosHead`."""

    head_class = heads.AdaCosHead


class CurricularFace(MarginLoss):
    """The loss of `heads.CurricularFaceHead`."""

    head_class = heads.CurricularFaceHead


class MVSoftmax(MarginLoss):
    """The loss of `heads.MVSoftmaxHead`."""

    head_class = heads.MVSoftmaxHead


class MagFace(MarginLoss):
    """The loss of `heads.MagFaceHead`."""

    head_class = heads.MagFaceHead


class AdaFace(MarginLoss):
    """The loss of `heads.AdaFaceHead`."""

    head_class = heads.AdaFaceHead


class ElasticArcFace(MarginLoss):
    """The loss of `heads.ElasticArcFaceHead`."""

    head_class = heads.ElasticArcFaceHead


class ElasticCosFace(MarginLoss):
    """The loss of `heads.ElasticCosFaceHead`."""

    head_class = heads.ElasticCosFaceHead


class UniFace(MarginLoss):
    """The loss of `heads.UniFaceHead`."""

    head_class = heads.UniFaceHead


class SubCenterArcFace(MarginLoss):
    """The loss of `heads.SubCenterArcFaceHead`."""

    head_class = heads.SubCenterArcFaceHead
