"""Model folders and their networks: weights out, weights in, and a network as an Embedder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor, nn

from visavis.errors import ModelFormatError
from visavis.files import atomic_file, digest_of
from visavis.metrics.similarity import unit_rows
from visavis.models.bounded_build import build_for, difference
from visavis.models.card import CARD, WEIGHTS, ModelCard, read_card
from visavis.models.classifier import CLASSIFIER, Classifier
from visavis.models.find import find_model
from visavis.models.licenses import check_license
from visavis.types import ByteArray, FloatArray
from visavis.vision.preprocessing import PreprocessSpec, fit_crops

if TYPE_CHECKING:
    from jaxtyping import Float

__all__ = ["TorchEmbedder", "load_model", "match_keys", "network_run", "save_model"]


def save_model(
    folder: str | os.PathLike[str], network: nn.Module, card: ModelCard, classifier: Classifier | None = None
) -> ModelCard:
    """Write `weights.safetensors` and `card.json` so that a full disk or a crash leaves an older model whole.

    The files are written beside the old ones first and renamed only when all are safe on disk. The card's
    `weights_digest` is set to the weights' SHA-256. A `classifier` is written too; an older one goes with its weights.

    Returns:
        The card as written.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    home = Path(folder)
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    data = save(tensors, metadata={"format": "pt"})  # a second key would be written in random order
    card = card.with_changes(weights_digest=hashlib.sha256(data).hexdigest())
    with ExitStack() as files:  # all whole, then all renamed
        if classifier is not None:
            files.enter_context(atomic_file(home / CLASSIFIER)).write(classifier.to_bytes(card.weights_digest))
        files.enter_context(atomic_file(home / WEIGHTS)).write(data)
        files.enter_context(atomic_file(home / CARD)).write(card.to_json().encode() + b"\n")
    if classifier is None:
        (home / CLASSIFIER).unlink(missing_ok=True)
    return card


def load_model(folder: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """Build the network a model folder's card names and fill it with the folder's weights, strictly; in eval mode.

    Raises:
        ModelFormatError: no card, damaged weights, weights that do not fit the backbone or not the card's digest.
    """
    home = find_model(folder)
    if home.is_file():
        raise ModelFormatError(f"{home}: expected a model folder with {WEIGHTS}, got an exported file without weights")
    card = read_card(home)
    check_license(card, home)
    path = home / WEIGHTS
    if not path.is_file():
        raise ModelFormatError(f"{path}: the model folder has no weights; expected {WEIGHTS} beside {CARD}")
    if card.weights_digest and digest_of(path) != card.weights_digest:
        raise ModelFormatError(
            f"{path}: these are not the weights the card speaks of (another SHA-256); restore the file or import anew"
        )
    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            shapes: dict[str, tuple[int, ...]] = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}  # noqa: SIM118
        network = build_for(card, shapes, name=str(home))
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFormatError(f"{path}: damaged or no safetensors file ({error})") from error
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ModelFormatError(f"{path}: {len(broken)} tensors hold NaN or infinity, the first is {broken[0]}")
    if problem := difference(network, shapes):
        raise ModelFormatError(f"{path}: the weights do not fit backbone {card.backbone}: {problem}")
    network.load_state_dict(state)
    return network.to(device).eval(), card


def network_run(network: nn.Module) -> Callable[[FloatArray], FloatArray]:
    """A network as a function of normalized arrays: float32 (N, 3, H, W) -> (N, D), in evaluation mode."""

    def run(x: FloatArray) -> FloatArray:
        network.eval()
        with torch.inference_mode():
            return np.asarray(network(torch.as_tensor(x)).float())

    return run


def match_keys(network: nn.Module, state: Mapping[str, Tensor], *, limit: int = 8) -> str:
    """Say which keys are missing, unknown or of another shape; an empty text when `state` fits strictly.

    Shapes: tensors of any shapes (N, ...).
    """
    return difference(network, {key: tuple(value.shape) for key, value in state.items()}, limit=limit)


class TorchEmbedder:
    """A network as an Embedder: fits the crops, normalizes once per batch into a reused buffer, fuses a mirrored view.

        embedding = unit(f(x)),  unit(f(x) + f(mirror x))  or  unit([f(x), f(mirror x)])

    for `spec.flip` none, sum and concat: raw features are fused, then scaled to length 1; a zero feature stays zero.

    Args:
        network: maps normalized float (N, 3, H, W) to raw features (N, D); is put into eval mode.
        spec: how its pictures must look.
        device: where the network runs.
        batch_size: crops at once, at least 1.
    """

    def __init__(
        self,
        network: nn.Module,
        spec: PreprocessSpec,
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
    ) -> None:
        self.network = network.to(device).eval()
        self.spec = spec
        self.device = torch.device(device)
        self.batch_size = max(1, int(batch_size))
        self._mean = torch.tensor(spec.mean, device=self.device).view(1, 3, 1, 1)
        self._scale = 1.0 / torch.tensor(spec.std, device=self.device).view(1, 3, 1, 1)
        self._buffer = torch.empty(0)

    @property
    def dim(self) -> int:
        """Length of an embedding: the network's, twice that when the mirrored view is concatenated."""
        own: Any = self.network.dim
        return int(own) * (2 if self.spec.flip == "concat" else 1)

    def embed(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N D"]:
        """Embed uint8 crops (N, H, W, 3), RGB, as float32 (N, D) with rows of length 1.

        Raises:
            DataError: crops of another type or shape.
        """
        features, _ = self.measure(crops)
        return unit_rows(features)

    def features(self, crops: ByteArray) -> Float[npt.NDArray[np.float32], "N D"]:
        """The fused features (N, D) before they are scaled to length 1; their norm tells of a picture's quality."""
        return self.measure(crops)[0]

    def measure(
        self, crops: ByteArray
    ) -> tuple[Float[npt.NDArray[np.float32], "N D"], Float[npt.NDArray[np.float32], " N"]]:
        """The fused features (N, D), and the mean length (N,) of the views' raw features before they are fused."""
        crops = fit_crops(crops, self.spec)
        result, norms = np.empty((len(crops), self.dim), np.float32), np.empty(len(crops), np.float32)
        with torch.inference_mode():
            for start in range(0, len(crops), self.batch_size):
                x = self._normalize(crops[start : start + self.batch_size])
                part = slice(start, start + len(x))
                views = [self.network(x).float()]
                if self.spec.flip != "none":
                    views.append(self.network(x.flip(3)).float())
                norms[part] = torch.stack([v.norm(dim=1) for v in views]).mean(dim=0).cpu().numpy()
                fused = torch.cat(views, 1) if self.spec.flip == "concat" else torch.stack(views).sum(dim=0)
                result[part] = fused.cpu().numpy()
        return result, norms

    def _normalize(self, crops: ByteArray) -> Tensor:
        if len(self._buffer) < len(crops):
            shape = (len(crops), 3, *self.spec.size)
            self._buffer = torch.empty(shape, device=self.device, memory_format=torch.channels_last)
        pixels = torch.as_tensor(np.ascontiguousarray(crops)).to(self.device).permute(0, 3, 1, 2)
        x = self._buffer[: len(crops)]
        x.copy_(pixels.flip(1) if self.spec.channels == "BGR" else pixels)
        return x.sub_(self._mean).mul_(self._scale)
