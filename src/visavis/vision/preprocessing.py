"""PreprocessSpec: what a network's pictures must look like. It travels with the weights; no caller passes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from visavis.errors import DataError, ModelFormatError
from visavis.types import ByteArray, json_object
from visavis.vision.alignment import (
    Antialias,
    Points,
    Template,
    align,
    five_points,
    get_template,
    template_points,
)
from visavis.vision.images import resize

if TYPE_CHECKING:
    from jaxtyping import UInt8

Channels = Literal["RGB", "BGR"]
Flip = Literal["none", "sum", "concat"]
Normalization = Literal["channel"]  # per-image whitening will be another value; programs before it refuse it by name


@dataclass(frozen=True)
class PreprocessSpec:
    """A network's input: x = (pixel − mean) / std by channel, of a `size` = (height, width) crop on `template`.

    `mean` and `std` are in pixel units (0–255) and in the order of `channels`. `flip` says how the embedding of the
    mirrored picture joins that of the picture: not at all, added before normalization, or concatenated. `template` is
    a name of TEMPLATES or the five points (5, 2), x and y in a crop of `size`. `antialias` says how a face larger than
    the crop is reduced when it is aligned (see `align`); `normalization`, over what mean and std are taken.
    """

    size: tuple[int, int] = (112, 112)
    template: str | Points = "arcface"
    channels: Channels = "RGB"
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    flip: Flip = "none"
    antialias: Antialias = "box"
    normalization: Normalization = "channel"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(type(v) is int and 8 <= v <= 1024 for v in self.size):
            raise ModelFormatError(f"preprocess size must be two whole numbers in [8, 1024], got {self.size}")
        if not isinstance(self.template, str):
            object.__setattr__(self, "template", five_points(self.template))
        get_template(self.template, self.size)
        if self.antialias not in get_args(Antialias) or self.normalization not in get_args(Normalization):
            raise ModelFormatError(
                "preprocess wants antialias none, area or box and normalization channel, got "
                f"{self.antialias}, {self.normalization}"
            )
        if self.channels not in get_args(Channels) or self.flip not in get_args(Flip):
            raise ModelFormatError(
                f"preprocess wants channels RGB or BGR and flip none, sum or concat, got {self.channels}, {self.flip}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not np.isfinite(values).all():
                raise ModelFormatError(f"preprocess {name} must be three finite numbers, got {values}")
        if min(self.std) <= 0:
            raise ModelFormatError(f"preprocess std must be positive, got {self.std}")

    @property
    def frame(self) -> Template:
        """The template with its frame."""
        return get_template(self.template, self.size)

    @property
    def template_name(self) -> str:
        """The template in words."""
        return self.template if isinstance(self.template, str) else "five points"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a model card."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """What a gallery is bound to: the fields cards had from the first, and a later one where it says another rule.

        So the galleries of models whose card was written before a field existed go on opening.
        """
        later = {"antialias": "area", "normalization": "channel"}
        return {k: v for k, v in asdict(self).items() if k not in later or v != later[k]}

    @classmethod
    def from_dict(cls, values: object) -> PreprocessSpec:
        """Read a model card's values.

        Raises:
            ModelFormatError: a key is missing or unknown, or a value impossible.
        """
        expected = set(cls.__dataclass_fields__)
        given = json_object(values)
        if given is None or set(given) != expected:
            got = sorted(given) if given is not None else type(values).__name__
            raise ModelFormatError(f"preprocess wants the keys {sorted(expected)}, got {got}")
        try:
            return cls(
                size=tuple(given["size"]),  # type: ignore[arg-type]
                template=given["template"],
                channels=given["channels"],
                mean=tuple(float(v) for v in given["mean"]),  # type: ignore[arg-type]
                std=tuple(float(v) for v in given["std"]),  # type: ignore[arg-type]
                flip=given["flip"],
                antialias=given["antialias"],
                normalization=given["normalization"],
            )
        except (TypeError, ValueError, DataError) as error:
            raise ModelFormatError(f"preprocess holds an impossible value: {error}") from error


def fit_crop(crop: UInt8[ByteArray, "H W 3"], spec: PreprocessSpec) -> UInt8[ByteArray, "h w 3"]:
    """Bring one aligned uint8 (H, W, 3) crop to a network's size: as it is, or from a full ArcFace frame.

    A square crop of another size is an ArcFace frame. It holds every named template as some of its columns (the center
    ones, unless the template says otherwise): those are cut out and shrunk to `spec.size`; onto five points it is
    warped. Anything else is refused, since stretching would move the landmarks.

    Raises:
        DataError: the crop's shape is neither the network's nor an ArcFace frame's.
    """
    height, width = crop.shape[:2]
    if (height, width) == spec.size:
        return crop
    frame = spec.frame
    if height == width:
        if frame.column is None:
            return _warped(crop, spec, spec.size)
        return resize(np.ascontiguousarray(cut_frame(crop[None], spec)[0]), spec.size)
    if height * frame.size[1] == width * frame.size[0]:
        return resize(crop, spec.size)
    raise DataError(
        f"the network wants {spec.size[0]}×{spec.size[1]} crops on the {spec.template_name} template (or square "
        f"ArcFace crops), got {height}×{width}; align the pictures first: visavis prepare SRC DST"
    )


def _warped(crop: ByteArray, spec: PreprocessSpec, size: tuple[int, int]) -> ByteArray:
    """A square ArcFace crop brought onto the spec's five points at `size`."""
    template = (template_points(spec.template, spec.size) + 0.5) * (size[0] / spec.size[0]) - 0.5
    points = template_points("arcface", (crop.shape[0], crop.shape[1]))
    return align(crop, points, template=template.tolist(), size=size, antialias=spec.antialias)


def cut_frame(crops: UInt8[ByteArray, "N H W 3"], spec: PreprocessSpec) -> UInt8[ByteArray, "N h w 3"]:
    """The template's part of square ArcFace crops (N, H, H, 3), in their own resolution; other crops as they are."""
    height, width = crops.shape[1:3]
    frame = spec.frame
    if height != width or not len(crops) or (frame.column is not None and frame.size[0] == frame.size[1]):
        return crops
    if frame.column is None:
        if (height, width) == spec.size:
            return crops
        size = (height, round(height * spec.size[1] / spec.size[0]))
        return np.stack([_warped(crop, spec, size) for crop in crops])
    left = round(width * frame.column / 112)
    return crops[:, :, left : left + round(width * frame.size[1] / 112)]


def place_frame(crops: UInt8[ByteArray, "N H W 3"], spec: PreprocessSpec) -> UInt8[ByteArray, "N h w 3"]:
    """Square crops (N, H, H, 3) of faces in the middle, moved to where crops of the template keep the face."""
    height, width = crops.shape[1:3]
    frame = spec.frame
    if height != width or not len(crops):
        return crops
    if frame.column is None:
        return np.stack([_warped(crop, spec, spec.size) for crop in crops])
    move = round(width * (frame.column - (112 - frame.size[1]) // 2) / 112)
    columns = [min(max(column - move, 0), width - 1) for column in range(width)]
    return crops[:, :, columns] if move else crops


def fit_crops(crops: ByteArray, spec: PreprocessSpec) -> UInt8[ByteArray, "N h w 3"]:
    """`fit_crop` over a batch (N, H, W, 3)."""
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[-1] != 3:
        raise DataError(f"crops must be uint8 (N, H, W, 3) RGB, got {crops.dtype} {crops.shape}")
    if crops.shape[1:3] == spec.size or not len(crops):
        return crops
    return np.stack([fit_crop(crop, spec) for crop in crops])
