"""Starting from a trained network: which layers stay as they are, adapters, and class centers from class means."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from visavis.distributed.launch import World
from visavis.errors import RecipeError, unknown_name
from visavis.losses.partial_fc.margin_softmax import MarginSoftmax
from visavis.models.torch import TorchEmbedder
from visavis.train.dataset import Advance, ImageDataset
from visavis.train.finetune.lora import adaptable, add_adapters, merged
from visavis.train.fsdp import shard_weights, whole_weights
from visavis.train.layers import children, layers
from visavis.train.recipe import FinetuneRecipe
from visavis.vision.preprocessing import PreprocessSpec, fit_crops

log = logging.getLogger(__name__)
_ALL_BUT = re.compile(r"all but last (\d+) (children|layers)")


class FineTuning:
    """What a recipe's `finetune` section does to a network; with its defaults, nothing.

    `freeze` names what does not learn: modules or parameters by name or prefix, `all`, or `all but last N children`
    (top-level modules with weights) or `all but last N layers` (see `layers`). A batch norm whose parameters are all
    frozen also keeps its statistics, unless `freeze_norms` says `none`; `all` keeps those of every batch norm.
    With `lora.rank` above 0 only the adapters learn (and, with `lora.train_norms`, all vectors: norms, biases, PReLU);
    frozen layers get no adapter.

    With `wise_ft_alpha` b < 1 the network that is saved and judged has the weights w₀ + b·(w − w₀), w₀ those it had
    here: part of the way to what was learned, where most of the gain is had for less of the loss on other pictures
    (Wortsman et al., arXiv 2109.01903v3, section 2; their α).

    Raises:
        RecipeError: a name that is no part of the network, or nothing to adapt.
    """

    def __init__(self, network: nn.Module, recipe: FinetuneRecipe) -> None:
        self.network, self.recipe = network, recipe
        self._blank: nn.Module | None = None
        self._start: dict[str, torch.Tensor] = {}
        if recipe.wise_ft_alpha < 1:
            self._start = {name: value.clone() for name, value in network.state_dict().items()}
        frozen = frozen_names(network, recipe.freeze)
        for name, parameter in network.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
        if recipe.lora.rank:
            self._adapt(frozen)
        self.norms = [module for name, module in network.named_modules()
                      if isinstance(module, _BatchNorm) and self._keeps(name, module, frozen)]  # fmt: skip
        if recipe.freeze or recipe.lora.rank or self.norms:
            learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
            log.info("fine-tuning: %s of %s parameters of the network learn, %d batch norms keep their statistics",
                     f"{learning:,}", f"{sum(p.numel() for p in network.parameters()):,}", len(self.norms))  # fmt: skip

    def train(self) -> None:
        """Put the network into training mode, save the norms that keep their statistics."""
        self.network.train()
        for norm in self.norms:
            norm.eval()

    def merged_network(self) -> nn.Module:
        """The network as it is saved: adapters merged, split weights gathered (all ranks must call), blended."""
        if self._blank is None:
            return self._blended(merged(self.network))
        self._blank.load_state_dict(whole_weights(self.network))
        return self._blended(self._blank)

    def shard(self, world: World) -> None:
        """Split the weights over the ranks (FSDP2); nothing for one process. Build the optimizer afterwards.

        Raises:
            RecipeError: there are adapters, whose products are of whole weights.
        """
        if self.recipe.lora.rank:
            raise RecipeError("loop.shard_backbone splits weights that finetune.lora would have to hold whole; use one")
        if world.size > 1:
            self.network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]  # FSDP2 wants it
            self._blank = copy.deepcopy(self.network)
            shard_weights(self.network, world)

    @torch.no_grad()
    def _blended(self, network: nn.Module) -> nn.Module:
        if self._start:
            network = copy.deepcopy(network) if network is self.network else network
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.lerp(self._start[name].to(value.device), value, self.recipe.wise_ft_alpha))
        return network

    def _adapt(self, frozen: set[str]) -> None:
        lora = self.recipe.lora
        wanted = _matching([f"{name}.weight" for name in adaptable(self.network)], lora.targets, self.network)
        names = [name.removesuffix(".weight") for name in wanted if name not in frozen]
        for parameter in self.network.parameters():
            if not (lora.train_norms and parameter.ndim <= 1):
                parameter.requires_grad_(False)
        add_adapters(self.network, names, rank=lora.rank, alpha=lora.alpha)

    def _keeps(self, name: str, norm: _BatchNorm, frozen: set[str]) -> bool:
        if self.recipe.freeze_norms != "frozen":
            return self.recipe.freeze_norms == "all"
        own = [key for key, _ in norm.named_parameters(name)]
        if not own:  # no scale and shift: frozen with the module it belongs to
            parent = name.rpartition(".")[0]
            own = [key for key, _ in self.network.get_submodule(parent).named_parameters(parent)]
        chosen = bool(self.recipe.lora.rank) or any(key in frozen for key in own)
        return chosen and not any(self.network.get_parameter(key).requires_grad for key in own)


def frozen_names(network: nn.Module, patterns: Iterable[str]) -> set[str]:
    """The parameters that a freeze plan names.

    Raises:
        RecipeError: a pattern that is no part of the network.
    """
    names = [name for name, _ in network.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        rule = _ALL_BUT.fullmatch(pattern.strip())
        if pattern.strip() == "all":
            found.update(names)
        elif rule:
            groups = children(network) if rule[2] == "children" else layers(network)
            if int(rule[1]) >= len(groups):
                raise RecipeError(
                    f"finetune.freeze {pattern!r}: the network has {len(groups)} {rule[2]}, so nothing would be frozen"
                )
            kept = {name for group in groups[len(groups) - int(rule[1]) :] for name in group}
            found.update(name for name in names if name not in kept)
        else:
            found.update(_matching(names, [pattern], network))
    return found


def _matching(names: Sequence[str], prefixes: Sequence[str], network: nn.Module) -> list[str]:
    """Those of `names` that are, or lie within, one of the modules or parameters; all when none is given."""
    for prefix in prefixes:
        if not any(name == prefix or name.startswith(prefix + ".") for name in names):
            known = [name for name, _ in network.named_children()] + list(names)
            raise RecipeError(
                unknown_name("part of the network", prefix, known) + ", all, all but last N children, or layers"
            )
    return [n for n in names if not prefixes or any(n == p or n.startswith(p + ".") for p in prefixes)]


@torch.no_grad()
def imprint(
    head: MarginSoftmax | None,
    network: nn.Module,
    spec: PreprocessSpec,
    dataset: ImageDataset,
    *,
    device: torch.device,
    images: int = 20,
    advance: Advance | None = None,
) -> None:
    """Set the class centers to the classes' mean embeddings: w_c = ‖w_c⁰‖ · unit(mean_i unit(f(x_i))), i of class c.

    w⁰ is the random start, whose norm is kept. At most `images` pictures of a class are taken, evenly spread. Further
    sub-centers are the same direction with their random start added, each of length 1. Of classes split over ranks,
    each rank computes its own. `advance` is told how many embeddings there are, of how many.

    Raises:
        RecipeError: there is no class center to set.

    Source: Qi et al., arXiv 1712.07136v2, equations 4 and 5, with their unit-norm centers' length left to the head.
    """
    if head is None:
        raise RecipeError("finetune.imprint sets class centers, but the recipe has head.name none")
    chosen = _spread(dataset.labels, head.start, head.stop, images)
    embedder = TorchEmbedder(network, replace(spec, flip="none"), device=device, batch_size=128)
    sums = torch.zeros(head.stop - head.start, head.dim, dtype=torch.float64)
    for start in range(0, len(chosen), 1024):
        part = chosen[start : start + 1024]
        vectors = torch.from_numpy(embedder.embed(fit_crops(dataset.take(part), spec))).double()
        sums.index_add_(0, torch.from_numpy(dataset.labels[part].astype(np.int64) - head.start), vectors)
        if advance:
            advance(start + len(part), len(chosen))
    means = normalize(sums, dim=1).to(head.weight.device, head.weight.dtype)
    rows = head.weight.view(len(means), head.sub_centers, head.dim)
    norms = rows.norm(dim=2, keepdim=True)
    directions = means[:, None].expand_as(rows).clone()
    directions[:, 1:] += normalize(rows[:, 1:], dim=2)
    rows.copy_(normalize(directions, dim=2) * norms)
    log.info("%d class centers start at the mean embedding of %d pictures", len(means), len(chosen))


def _spread(labels: np.ndarray, start: int, stop: int, images: int) -> np.ndarray:
    """Indices of up to `images` pictures of each class in [start, stop), evenly spread over its pictures."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(start, stop + 1))
    parts = []
    for low, high in pairwise(bounds.tolist()):
        count = min(images, high - low)
        parts.append(order[low + np.arange(count) * (high - low) // max(1, count)])
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
