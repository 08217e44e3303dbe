"""What every exported graph shares, whatever runs it: its card, its layout, batches and the mirrored view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from visavis.errors import ModelFormatError
from visavis.metrics.similarity import unit_rows
from visavis.models.card import ModelCard
from visavis.types import ByteArray
from visavis.vision.preprocessing import Flip, PreprocessSpec, fit_crops

if TYPE_CHECKING:
    from jaxtyping import Float

CARD_KEY = "visavis.card"
IDENTITIES_KEY = "visavis.identities"  # JSON: whom the columns of the output "logits" stand for
LOGITS = "logits"
INPUT_KEY = "visavis.input"  # "uint8 pixels" or "float pixels"; absent from foreign files, which want x normalized


def require_cosine(card: ModelCard, path: Path) -> ModelCard:
    """Refuse a model compared by anything but the cosine, which is what unit rows are made for."""
    if card.similarity != "cosine":
        raise ModelFormatError(f"{path}: compares embeddings by {card.similarity}; this visavis compares by cosine")
    return card


def identities_of(text: str | None, columns: Any, name: str) -> tuple[str, ...]:
    """Whom the columns of a graph's logits stand for, from its metadata; () where it has no classifier.

    Raises:
        ModelFormatError: no list of names, or another number than the graph has columns.
    """
    if not text:
        return ()
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{name}: {IDENTITIES_KEY} is no JSON list ({error})") from error
    names = [v for v in cast("list[object]", found) if isinstance(v, str)] if isinstance(found, list) else []
    if not isinstance(found, list) or len(names) != len(cast("list[object]", found)):
        raise ModelFormatError(f"{name}: {IDENTITIES_KEY} is no JSON list of names")
    if columns != len(names):
        raise ModelFormatError(f"{name}: names {len(names)} identities, its graph gives logits of {columns}")
    return tuple(names)


def check_card(name: str, card: ModelCard, shape: list[Any], columns: Any, *, nhwc: bool, pixels: bool) -> None:
    """Refuse a graph whose input or output contradicts its card.

    Raises:
        ModelFormatError: the picture size or the embedding length differ.
    """
    height, width = card.preprocess.size
    expected = [height, width, 3] if nhwc else [3, height, width]
    if list(shape[1:]) != expected:
        raise ModelFormatError(
            f"{name}: the card says crops of {height}×{width}, the graph takes {shape[1:]}; card and graph disagree"
        )
    dim = card.embedding_dim * (2 if pixels and card.preprocess.flip == "concat" else 1)
    if isinstance(columns, int) and columns != dim:
        raise ModelFormatError(
            f"{name}: the card says embeddings of {dim}, the graph gives {columns}; card and graph disagree"
        )


class GraphEmbedder:
    """What ONNX Runtime and OpenVINO share: batching, the float input's normalization, the mirrored view, unit rows.

    An export of visavis takes `pixels`, normalizes and fuses inside; a foreign graph wants x normalized and fuses
    nothing. Another `flip` than the graph's is possible only where it fuses nothing: then the mirrored crops run
    through it a second time.
    """

    def __init__(
        self,
        card: ModelCard,
        *,
        name: str,
        flip: Flip | None,
        batch_size: int,
        nhwc: bool,
        pixels: bool,
        identities: tuple[str, ...] = (),
    ) -> None:
        built: Flip = card.preprocess.flip if pixels else "none"
        if flip not in (None, built) and built != "none":
            raise ModelFormatError(
                f"{name}: its graph fuses the mirrored picture by {built!r}, so it cannot run with flip {flip!r}; "
                "use the model folder, or export with --flip none"
            )
        self.card, self.name, self.identities = card, name, identities
        self.spec: PreprocessSpec = card.preprocess
        self.flip: Flip = flip or card.preprocess.flip
        self.batch_size = max(1, int(batch_size))
        self._outside = self.flip if built == "none" else "none"
        self._nhwc = nhwc
        self._pixels = pixels
        self._graph_dim = card.embedding_dim * (2 if built == "concat" else 1)

    @property
    def graph_fuses(self) -> bool:
        """Whether nothing is done with the mirrored view outside the graph: it is inside, or not looked at."""
        return self._outside == "none"

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._graph_dim * (2 if self._outside == "concat" else 1)

    def checked(self, feature: Any, count: int) -> Float[npt.NDArray[np.float32], "N D"]:
        """What a graph gave for `count` crops, as (count, D).

        Raises:
            ModelFormatError: another number of rows or columns, or values that are not finite.
        """
        rows = np.asarray(feature, np.float32)
        rows = rows.reshape(len(rows), -1) if rows.ndim > 1 and rows.size else rows
        if rows.shape != (count, self._graph_dim):
            raise ModelFormatError(
                f"{self.name}: gave values of shape {np.shape(feature)} for {count} crops; expected "
                f"({count}, {self._graph_dim})"
            )
        if not np.isfinite(rows).all():
            raise ModelFormatError(f"{self.name}: gave NaN or infinity for a crop; its weights are damaged")
        return rows

    def run(self, x: npt.NDArray[Any]) -> Float[npt.NDArray[np.float32], "N D"]:
        """One batch in the graph's own layout -> raw features; (N, ...) -> (N, D)."""
        raise NotImplementedError

    def run_logits(self, x: npt.NDArray[Any]) -> Float[npt.NDArray[np.float32], "N C"]:
        """One batch in the graph's own layout -> logits (N, C) of the classifier inside."""
        raise NotImplementedError

    def logits(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N C"]:
        """Logits (N, C) over `identities` of uint8 crops (N, H, W, 3), RGB; the mean over a picture's views.

        Raises:
            ModelFormatError: the graph holds no classifier.
        """
        if not self.identities:
            raise ModelFormatError(f"{self.name}: holds no classifier")
        crops = fit_crops(crops, self.spec)
        result = np.empty((len(crops), len(self.identities)), np.float32)
        for start in range(0, len(crops), self.batch_size):
            batch = crops[start : start + self.batch_size]
            views = [batch] if self._outside == "none" else [batch, batch[:, :, ::-1]]
            result[start : start + len(batch)] = np.mean([self.run_logits(self.layout(v)) for v in views], axis=0)
        return result

    def embed(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N D"]:
        """Embed uint8 crops (N, H, W, 3), RGB, as float32 (N, D) with rows of length 1.

        Raises:
            DataError: crops of another type or shape.
        """
        return unit_rows(self.features(crops))

    def features(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N D"]:
        """The fused features (N, D) before they are scaled to length 1; their norm tells of a picture's quality."""
        if self._outside == "none" and 0 < len(crops) <= self.batch_size:
            return self.run(self.layout(fit_crops(crops, self.spec)))  # nothing to join: a picture at once is one call
        return self.measure(crops)[0]

    def measure(
        self, crops: ByteArray
    ) -> tuple[Float[npt.NDArray[np.float32], "N D"], Float[npt.NDArray[np.float32], " N"]]:
        """The fused features (N, D), and the mean length (N,) of the views' raw features before they are fused.

        The lengths are NaN where the graph itself adds the mirrored view, since it shows the sum only.
        """
        crops = fit_crops(crops, self.spec)
        result, norms = np.empty((len(crops), self.dim), np.float32), np.empty(len(crops), np.float32)
        for start in range(0, len(crops), self.batch_size):
            batch = crops[start : start + self.batch_size]
            part = slice(start, start + len(batch))
            result[part], norms[part] = self._fuse(self._views(batch))
        return result, norms

    def _views(self, batch: ByteArray) -> list[npt.NDArray[np.float32]]:
        """Raw features (N, D) of the picture and, where the graph does not see to it, of its mirror image."""
        feature = self.run(self.layout(batch))
        return [feature] if self._outside == "none" else [feature, self.run(self.layout(batch[:, :, ::-1]))]

    def _fuse(self, views: list[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.floating]]:
        """Features as the rule for the mirrored view says, and the views' mean length."""
        fused = np.concatenate(views, 1) if self._outside == "concat" else np.sum(views, axis=0)
        if len(views) == 1 and self.flip == "sum":
            return fused, np.full(len(fused), np.nan)
        single = np.split(views[0], 2, axis=1) if len(views) == 1 and self.flip == "concat" else views
        return fused, np.mean([np.linalg.norm(v, axis=1) for v in single], axis=0)

    @property
    def pixels(self) -> str:
        """What the graph takes: uint8 or float pixels, or normalized values."""
        return "uint8" if self._nhwc else "float" if self._pixels else "normalized"

    def layout(self, batch: ByteArray) -> npt.NDArray[Any]:
        """Crops (N, H, W, 3) of the network's size as the graph takes them."""
        if self._nhwc:
            return np.ascontiguousarray(batch)
        if self._pixels:
            return np.ascontiguousarray(batch.transpose(0, 3, 1, 2), np.float32)
        ordered = batch[..., ::-1] if self.spec.channels == "BGR" else batch
        x = ordered.astype(np.float32)
        x -= np.asarray(self.spec.mean, np.float32)
        x /= np.asarray(self.spec.std, np.float32)
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
