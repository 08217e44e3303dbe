"""Published weights: which source a state dict is from, and what its network and pictures must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from visavis.backbones import BACKBONES, build_backbone
from visavis.backbones.iresnet import DEPTHS
from visavis.backbones.spherenet import STAGES
from visavis.backbones.vit import SIZES
from visavis.errors import ModelFormatError, unknown_name
from visavis.models.torch import match_keys
from visavis.vision.preprocessing import PreprocessSpec

State = Mapping[str, Tensor]
_ARCFACE = PreprocessSpec((112, 112), "arcface", "RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
_SPHEREFACE = PreprocessSpec((112, 96), "sphereface", "RGB", (127.5, 127.5, 127.5), (128.0, 128.0, 128.0))


@dataclass(frozen=True)
class Facts:
    """What a state dict tells of its network: backbone, arguments, last grid (height, width) and embedding length."""

    backbone: str
    dim: int
    grid: tuple[int, int] | None
    args: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class PublishedSource:
    """A trainer whose weights are known: its preprocessing, its heads' keys, and how to read a network's facts."""

    name: str
    preprocess: PreprocessSpec
    facts: Callable[[State], Facts | None]
    heads: tuple[str, ...] = ()


def _grid_of(area: int) -> tuple[int, int] | None:
    """The last grid of the field's two crops, by its area: 7 × 7 of 112 × 112, 7 × 6 of 112 × 96."""
    return {49: (7, 7), 42: (7, 6)}.get(area)


def _iresnet(state: State) -> Facts | None:
    if not {"layer4.0.bn3.weight", "fc.weight", "features.weight"} <= set(state):
        return None
    counts = tuple(len({k.split(".")[1] for k in state if k.startswith(f"layer{i}.")}) for i in range(1, 5))
    depth = next((depth for depth, blocks in DEPTHS.items() if blocks == counts), None)
    if depth is None:
        return None
    return Facts(f"iresnet{depth}", state["fc.weight"].shape[0], _grid_of(state["fc.weight"].shape[1] // 512))


def _mbf(state: State) -> Facts | None:
    if not {"conv_sep.layers.0.weight", "features.layers.2.weight", "features.layers.0.layers.0.weight"} <= set(state):
        return None
    narrow = state["layers.0.layers.0.weight"].shape[0]
    repeats = [len({k.split(".")[3] for k in state if k.startswith(f"layers.{i}.layers.")}) for i in (3, 5, 7)]
    first = "layers.1.layers.0.layers.0.layers.0.weight"
    opening = len({k.split(".")[3] for k in state if k.startswith("layers.1.layers.")}) if first in state else 1
    blocks = [opening, *repeats]
    height, width = state["features.layers.0.layers.0.weight"].shape[2:]
    args = {"scale": narrow // 64, "blocks": blocks}
    name = "mbf_large" if args == {"scale": 4, "blocks": [2, 8, 12, 4]} else "mbf"
    known = name == "mbf_large" or args == {"scale": 2, "blocks": [1, 4, 6, 2]}
    return Facts(name, state["features.layers.2.weight"].shape[0], (height, width), {} if known else args)


def _vit(state: State) -> Facts | None:
    if not {"pos_embed", "patch_embed.proj.weight", "feature.2.weight", "blocks.0.attn.qkv.weight"} <= set(state):
        return None
    width, patch = state["patch_embed.proj.weight"].shape[0], state["patch_embed.proj.weight"].shape[2]
    depth = len({k.split(".")[1] for k in state if k.startswith("blocks.")})
    variant = next((name for name, (w, d, _) in SIZES.items() if (w, d) == (width, depth)), None)
    if variant is None:
        return None
    side = round(state["pos_embed"].shape[1] ** 0.5)
    square = side * side == state["pos_embed"].shape[1] and 112 // patch == side
    args = {} if patch == 9 else {"patch": patch}
    return Facts(f"vit_{variant}", state["feature.2.weight"].shape[0], (7, 7) if square else None, args)


def _spherenet(state: State) -> Facts | None:
    if not {"conv1_1.weight", "fc5.weight"} <= set(state):
        return None
    counts = tuple((sum(f"conv{i}_{j}.weight" in state for j in range(1, 40)) - 1) // 2 for i in range(1, 5))
    depth = next((depth for depth, blocks in STAGES.items() if blocks == counts), None)
    if depth is None:
        return None
    args = {"conv_bias": True} if "conv1_1.bias" in state else {}
    return Facts(f"sphere{depth}", state["fc5.weight"].shape[0], _grid_of(state["fc5.weight"].shape[1] // 512), args)


def _mobilefacenet(state: State) -> Facts | None:
    if not {"dw_conv1.conv.weight", "linear7.conv.weight", "linear1.conv.weight"} <= set(state):
        return None
    if "extra1.conv.weight" in state:
        return None
    height, width = state["linear7.conv.weight"].shape[2:]
    return Facts("mobilefacenet", state["linear1.conv.weight"].shape[0], (height, width))


SOURCES: dict[str, PublishedSource] = {
    "arcface_torch iResNet": PublishedSource("arcface_torch iResNet", _ARCFACE, _iresnet),
    "arcface_torch MobileFaceNet": PublishedSource("arcface_torch MobileFaceNet", _ARCFACE, _mbf),
    "arcface_torch ViT": PublishedSource("arcface_torch ViT", _ARCFACE, _vit),
    "sphereface_pytorch": PublishedSource(
        "sphereface_pytorch", replace(_SPHEREFACE, channels="BGR"), _spherenet, heads=("fc6.weight",)
    ),
    "MobileFaceNet_Pytorch": PublishedSource("MobileFaceNet_Pytorch", _SPHEREFACE, _mobilefacenet),
}


@dataclass(frozen=True)
class Published:
    """An imported network and what is known of it; `dropped` lists the head's tensors that were left out."""

    network: nn.Module
    backbone: str
    args: dict[str, Any]
    preprocess: PreprocessSpec
    dim: int
    source: PublishedSource | None
    dropped: tuple[str, ...]


def recognize(state: State) -> tuple[PublishedSource, Facts] | None:
    """The known source of a state dict by its names and shapes, or None."""
    for source in SOURCES.values():
        facts = source.facts(state)
        if facts is not None:
            return source, facts
    return None


def import_weights(
    state: State,
    *,
    backbone: str = "auto",
    args: Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    dim: int | None = None,
    name: str = "checkpoint",
) -> Published:
    """Build the network of a state dict and fill it strictly.

    What the weights themselves say (depth, embedding length, last grid) is taken from them, the pictures' form from
    the known source; `preprocess` overrides fields of it. Of an unknown source everything must be said.

    Args:
        state: tensors by name.
        backbone: a name of BACKBONES, or auto: whatever known source the names match.
        args: arguments of the backbone besides those the weights show.
        preprocess: fields of a PreprocessSpec.
        dim: embedding length, where the weights do not show it.
        name: what errors call the checkpoint.

    Raises:
        ModelFormatError: unknown source, tensors missing, unknown or misshapen (each listed), or preprocessing unsaid.
    """
    if backbone != "auto" and backbone not in BACKBONES and ":" not in backbone:
        raise ModelFormatError(unknown_name("backbone", backbone, [*BACKBONES, "auto"]))
    known = recognize(state)
    if known is not None and backbone not in ("auto", known[1].backbone):
        known = _unless_other(known, backbone, name)
    if known is None and backbone == "auto":
        first = ", ".join(list(state)[:4])
        raise ModelFormatError(
            f"{name}: its {len(state)} tensors ({first}, ...) match no known source ({', '.join(SOURCES)}); "
            "say --backbone NAME and --preprocess size=HxW,mean=M,std=S"
        )
    source, facts = known if known is not None else (None, None)
    built = facts.backbone if facts is not None else backbone
    spec = _preprocess(source, facts, dict(preprocess or {}), name)
    arguments = {**(facts.args if facts is not None else {}), **(args or {})}
    length = dim or (facts.dim if facts is not None else None)
    if length is None:
        raise ModelFormatError(f"{name}: the embedding length of an unknown source must be said: --dim N")
    network = build_backbone(built, size=spec.size, dim=length, **arguments)
    heads = source.heads if source is not None else ()
    dropped = tuple(key for key in heads if key in state)
    wanted = network.state_dict()
    # Checkpoints of PyTorch before 0.4.1 have no batch counters; they only count, nothing is computed from them.
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked") and key not in state}
    filled = {key: value for key, value in state.items() if key not in dropped} | counters
    problem = match_keys(network, filled)
    if problem:
        raise ModelFormatError(
            f"{name}: does not fit backbone {built} ({spec.size[0]}×{spec.size[1]}, {length}): {problem}"
        )
    network.load_state_dict(filled)
    return Published(network.eval(), built, arguments, spec, length, source, dropped)


def _unless_other(known: tuple[PublishedSource, Facts], backbone: str, name: str) -> None:
    """A named backbone that is not the recognized one may still be a user's own; a published one cannot be."""
    if ":" in backbone:
        return
    raise ModelFormatError(
        f"{name}: these are weights of {known[1].backbone} (from {known[0].name}), not of {backbone}; "
        f"say --backbone {known[1].backbone}"
    )


def _preprocess(
    source: PublishedSource | None, facts: Facts | None, given: dict[str, Any], name: str
) -> PreprocessSpec:
    if source is None or facts is None:
        unsaid = [key for key in ("size", "mean", "std") if key not in given]
        if unsaid:
            raise ModelFormatError(
                f"{name}: the preprocessing of an unknown source must be said, {', '.join(unsaid)} missing; as in "
                "--preprocess size=112x112,channels=RGB,mean=127.5,std=127.5"
            )
        return PreprocessSpec(**given)
    spec = source.preprocess
    if facts.grid is not None:
        size = (16 * facts.grid[0], 16 * facts.grid[1])
        template = {(112, 112): "arcface", (112, 96): "sphereface"}.get(size)
        if template is None and "template" not in given:
            raise ModelFormatError(
                f"{name}: its last grid is {facts.grid[0]}×{facts.grid[1]}, crops of about {size[0]}×{size[1]}; "
                "say --preprocess size=HxW,template=arcface|sphereface"
            )
        spec = replace(spec, size=size, template=template or spec.template)
    elif "size" not in given:
        raise ModelFormatError(f"{name}: its crop size cannot be read from the weights; say --preprocess size=HxW")
    return replace(spec, **given)
