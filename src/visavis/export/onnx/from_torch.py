"""A model folder's network as one ONNX graph: pixels in, fused feature out, the card in its metadata."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import get_args

import onnx
import torch
from onnx import shape_inference
from torch import Tensor, nn

from visavis.errors import ModelFormatError, RecipeError
from visavis.export.onnx.batchnorm_folding import fold_batch_norms
from visavis.export.onnx.files import OPSETS, Exporter, Input, cause_of, set_metadata
from visavis.models.card import ModelCard
from visavis.models.classifier import Classifier
from visavis.models.graph import LOGITS
from visavis.vision.preprocessing import PreprocessSpec


class PixelNetwork(nn.Module):
    """What is exported: pixels -> (x − mean) / std -> network -> the mirrored view joined as the spec says.

    Both views run as one batch of 2N. Input uint8 (N, H, W, 3) or float (N, 3, H, W), RGB, 0–255; output raw features
    (N, D), or (N, 2·D) for flip concat. With a `classifier` a second output: its logits (N, C) of the views' mean.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, spec: PreprocessSpec, *, pixels: Input, classifier: Classifier | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.pixels = pixels
        self.dim = int(network.dim)  # pyright: ignore[reportArgumentType]
        self.classifier = None if classifier is None else ClassifierLayer(classifier)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Pixels to features, and to logits if there is a classifier; (N, ...) -> (N, D) and (N, C)."""
        feature, mean = self._features(image)
        return feature if self.classifier is None else (feature, self.classifier(mean))

    def _features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The fused features and, for the classifier, the mean over the views."""
        x = image.to(torch.float32).permute(0, 3, 1, 2) if self.pixels == "uint8" else image
        if self.spec.channels == "BGR":
            x = x[:, [2, 1, 0]]
        x = (x - self.mean) * self.scale
        if self.spec.flip == "none":
            feature = self.network(x)
            return feature, feature
        both = self.network(torch.cat([x, x.flip(3)]))
        views = both.reshape(2, -1, self.dim)
        total = views.sum(0)
        if self.spec.flip == "sum":
            return total, total * 0.5
        return views.transpose(0, 1).reshape(-1, 2 * self.dim), total * 0.5

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` gives."""
        return ["embedding"] if self.classifier is None else ["embedding", LOGITS]

    def example(self, count: int = 2) -> Tensor:
        """A batch of gray crops in the input's own layout; (N, H, W, 3) or (N, 3, H, W)."""
        height, width = self.spec.size
        if self.pixels == "uint8":
            return torch.full((count, height, width, 3), 128, dtype=torch.uint8)
        return torch.full((count, 3, height, width), 128.0)


class ClassifierLayer(nn.Module):
    """A classifier's logits (N, C) of features (N, D), as one dense layer."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        rows, dim = classifier.weight.shape
        self.sub_centers = classifier.sub_centers
        self.dense = nn.Linear(dim, rows, bias=classifier.bias is not None)
        self.dense.weight.data = torch.from_numpy(classifier.weight.copy())
        if classifier.bias is not None:
            self.dense.bias.data = torch.from_numpy(classifier.bias.copy())

    def forward(self, features: Tensor) -> Tensor:
        """max over a class's centers of w · x + b; (N, D) -> (N, C)."""
        values = self.dense(features)
        return values if self.sub_centers == 1 else values.unflatten(1, (-1, self.sub_centers)).amax(2)


def make_onnx(
    network: nn.Module,
    card: ModelCard,
    *,
    pixels: Input = "uint8",
    exporter: Exporter = "torchscript",
    opset: int = 18,
    fold: bool = True,
    batch: int | None = None,
    classifier: Classifier | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a network with its preprocessing, BatchNorm folded, its card in `metadata_props`.

    Args:
        network: maps normalized (N, 3, H, W) to features (N, D).
        card: says the preprocessing; its JSON is stored under `visavis.card`.
        pixels: uint8 (N, H, W, 3) or float (N, 3, H, W), both RGB pixels 0–255.
        exporter: torchscript (seconds) or dynamo (torch.export, slower, what PyTorch will keep).
        opset: 17 to 23.
        fold: fold BatchNorm.
        batch: fixed batch size; any when None.
        classifier: becomes a second output `logits` (N, C), whose names stand in the metadata.

    Raises:
        RecipeError: unknown exporter, input or opset.
        ModelFormatError: the network holds something the exporter cannot translate; the operator and layer are named.
    """
    if exporter not in get_args(Exporter) or pixels not in ("uint8", "float") or opset not in OPSETS:
        raise RecipeError(
            f"export wants --exporter torchscript or dynamo, --input uint8 or float and --opset "
            f"{OPSETS[0]} to {OPSETS[-1]}, "
            f"got {exporter}, {pixels}, {opset}"
        )
    wrapped = PixelNetwork(network, card.preprocess, pixels=pixels, classifier=classifier).eval()
    try:
        with warnings.catch_warnings(), _quiet(("torch.onnx", "torch.export", "onnxscript")):
            warnings.simplefilter("ignore")
            model = _by_torchscript(wrapped, opset) if exporter == "torchscript" else _by_dynamo(wrapped, opset)
    except Exception as error:  # the exporters raise errors of many kinds, all about the network
        raise ModelFormatError(
            f"cannot export backbone {card.backbone} with {exporter}: {cause_of(error)}; "
            f"try --exporter {'dynamo' if exporter == 'torchscript' else 'torchscript'} or a newer --opset"
        ) from error
    dims = [card.embedding_dim * (2 if card.preprocess.flip == "concat" else 1)]
    _name_shapes(model, dims if classifier is None else [*dims, len(classifier.identities)], batch)
    if fold:
        model = fold_batch_norms(model)
    model = shape_inference.infer_shapes(model)
    model.producer_name = "visavis"
    set_metadata(model, card, pixels=pixels, identities=classifier.identities if classifier else ())
    onnx.checker.check_model(model)
    return model


def _by_torchscript(wrapped: PixelNetwork, opset: int) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.onnx.export(
        wrapped,
        (wrapped.example(),),
        buffer,  # pyright: ignore[reportArgumentType]
        dynamo=False,
        opset_version=opset,
        input_names=["image"],
        output_names=wrapped.outputs,
        dynamic_axes={name: {0: "batch"} for name in ("image", *wrapped.outputs)},
    )
    return onnx.load_model_from_string(buffer.getvalue())


def _by_dynamo(wrapped: PixelNetwork, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        wrapped,
        (wrapped.example(3),),
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=["image"],
        output_names=wrapped.outputs,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65_536)},),
    )
    if program is None:
        raise RuntimeError("the exporter gave no program")
    return program.model_proto


def _name_shapes(model: onnx.ModelProto, dims: Sequence[int], batch: int | None) -> None:
    """Every output and input is (batch, ...) by one name or number, the length of each output's rows is known."""
    for value in (model.graph.input[0], *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        first.Clear()
        if batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = batch
    for output, dim in zip(model.graph.output, dims, strict=True):
        shape = output.type.tensor_type.shape
        while len(shape.dim) > 2:
            shape.dim.pop()
        while len(shape.dim) < 2:
            shape.dim.add()
        shape.dim[1].Clear()
        shape.dim[1].dim_value = dim


class _quiet:
    """Silence chatty loggers for a while."""

    def __init__(self, names: Iterable[str]) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *args: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)
