"""A recipe: everything that decides a training run, typed; YAML in, YAML out, unknown keys refused."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from visavis.data.augment.augmentation import Augmentation
from visavis.data.pair_lists.dialect import Dialect
from visavis.errors import ModelFormatError, RecipeError, unknown_name
from visavis.runtimes import import_runtime
from visavis.train.former_keys import present_flags, present_keys
from visavis.train.own_data import GENERATED, with_own_data
from visavis.train.started_from import settled
from visavis.train.strict_yaml import read_yaml
from visavis.vision.preprocessing import PreprocessSpec

RECIPES = "visavis.recipes"
# Keys that are gone, and what to write instead.
GONE = {
    "loop.accumulate": "loop.batch_size is the global batch now (device batch × devices × accumulate of old); write "
    "that, and as loop.device_batch the images a device takes at once"
}


@dataclass
class SyntheticRecipe:
    """Generated identities, used alone or beside `data.source`.

    A source given by flag takes their place unless --data.generated adds them (visavis.train.own_data).
    """

    identities: int = 0
    images_per_identity: int = 16
    first_identity: int = 0
    seed: int = 0
    difficulty: float = 1.0
    size: int = 112


@dataclass
class DataRecipe:
    """What to train on and in which order.

    `identities` is a file naming the identities to use, one a line (a path, or a file in the source); `min_images`
    drops rarer ones (they are counted). Decoded pictures are kept, memory-mapped, in the folder `cache` (auto: the
    user's cache folder; memory: nowhere) when they take at most `cache_gb`; larger sets are decoded as they are needed.
    `held_out` is the share of the source's identities kept out of training and judged by, where `evaluate` names no
    pairs (visavis.train.held_out).
    `skip_damaged` pictures that cannot be read are replaced by others of their identity, logged and counted in the
    card; decoded pictures then stay in memory. Digests of at most `fingerprints` pictures are kept beside the weights,
    24 bytes each, so that an evaluation can tell whether they were trained on. `expected_identities` and
    `expected_images` say what the published set holds, for `--dry-run` without it.
    """

    source: str = ""
    identities: str = ""
    min_images: int = 1
    held_out: float = 0.0
    synthetic: SyntheticRecipe = field(default_factory=SyntheticRecipe)
    sampler: Literal["shuffled", "pxk"] = "shuffled"
    images_per_class: int = 5
    workers: int = 2
    cache: str = "auto"
    cache_gb: float = 2.0
    skip_damaged: int = 0
    fingerprints: int = 1_000_000
    expected_identities: int = 0
    expected_images: int = 0


@dataclass
class PreprocessRecipe:
    """The network's input; becomes the model card's PreprocessSpec (mean and std in pixel units).

    `template` is a name or five points [x, y] in a crop of `size`; `antialias`, how larger faces are reduced.
    """

    size: list[int] = field(default_factory=lambda: [112, 112])
    template: str | list[list[float]] = "arcface"
    channels: Literal["RGB", "BGR"] = "RGB"
    mean: list[float] = field(default_factory=lambda: [127.5, 127.5, 127.5])
    std: list[float] = field(default_factory=lambda: [127.5, 127.5, 127.5])
    flip: Literal["none", "sum", "concat"] = "none"
    antialias: Literal["none", "area", "box"] = "box"
    normalization: Literal["channel"] = "channel"

    def spec(self) -> PreprocessSpec:
        """The frozen spec of the model card."""
        return PreprocessSpec.from_dict(dataclasses.asdict(self))


@dataclass
class BackboneRecipe:
    """The network: a name in BACKBONES or `module:callable`, its embedding dimension and further arguments."""

    name: str = "small"
    dim: int = 128
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class HeadRecipe:
    """The classification loss: a name in HEADS (or `none`), its arguments and what margin_softmax does with it.

    `center_loss` is the weight λ of the distance to the class mean, `norm_weight_power` the γ of the weights ‖x‖^γ.
    `init_std` is the standard deviation of the initial centers' values; 0: 1/√dim, length about 1.
    `keep_classifier` writes the class centers and whose they are into the run's model folders.
    """

    name: str = "arcface"
    args: dict[str, Any] = field(default_factory=dict)
    sample_rate: float = 1.0
    sub_centers: int = 1
    label_smoothing: float = 0.0
    center_loss: float = 0.0
    norm_weight_power: float = 0.0
    weight: float = 1.0
    init_std: float = 0.0
    keep_classifier: bool = False


@dataclass
class TripletRecipe:
    """The triplet loss; `weight` 0 leaves it out. See visavis.losses.triplets for miners and pools."""

    weight: float = 0.0
    margin: float = 0.25
    miner: str = "batch_random"
    miner_args: dict[str, Any] = field(default_factory=dict)
    pool: Literal["online", "semi-online", "offline"] = "online"
    pool_batches: int = 10
    soft_margin: bool = False


@dataclass
class LoraRecipe:
    """Low-rank adapters on linear and 1×1 convolution layers; rank 0 adds none. See visavis.train.finetune.lora.

    `targets` are names or prefixes of layers (all where empty); with `train_norms` norms, biases and PReLU learn too.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: list[str] = field(default_factory=list)
    train_norms: bool = False


@dataclass
class FinetuneRecipe:
    """What becomes of the network `init` names; see visavis.train.finetune.finetuning.

    `init_head` takes the class centers of the run `init` names where identities have the same name; the others start
    anew. `imprint` sets the class centers to the mean embeddings of at most `imprint_images` pictures a class. `freeze`
    holds names or prefixes, `all`, `all but last N children` or `all but last N layers`; `freeze_norms` says which
    batch norms keep their statistics: those whose parameters are `frozen`, `all` or `none`. `wise_ft_alpha` b < 1
    saves and judges w₀ + b·(w − w₀), weights part of the way from those of `init` to the learned ones.
    """

    init_head: bool = False
    imprint: bool = False
    imprint_images: int = 20
    wise_ft_alpha: float = 1.0
    freeze: list[str] = field(default_factory=list)
    freeze_norms: Literal["frozen", "all", "none"] = "frozen"
    lora: LoraRecipe = field(default_factory=LoraRecipe)


@dataclass
class DistillRecipe:
    """Learning to embed as `teacher` (any MODEL) does: weights of the cosine and of the relational loss.

    See visavis.train.finetune.distillation.
    """

    teacher: str = ""
    weight: float = 1.0
    relational: float = 0.0


@dataclass
class OptimizerRecipe:
    """The optimizer. `lr` is used as it is, or scaled by global batch / `lr_reference_batch` where that is set.

    `rho` is the decay of Adadelta's and RMSprop's mean squares. With `decay_norms` off parameters of norm layers have
    no weight decay; with `decay_norms_and_biases` off nothing of one dimension has (biases, norms, PReLU), but PReLU's
    slopes with `decay_prelu`. `clip_norm` is the largest norm of the gradient of all that learns, or of the `backbone`
    alone, the centers' left as they are.
    """

    name: str = "sgd"
    lr: float = 0.1
    lr_reference_batch: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    rho: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 5e-4
    decay_norms: bool = True
    decay_norms_and_biases: bool = True
    decay_prelu: bool = False
    head_lr_scale: float = 1.0
    layer_decay: float = 1.0
    clip_norm: float = 0.0
    clip: Literal["all", "backbone"] = "all"


@dataclass
class ScheduleRecipe:
    """The learning rate over the run: a name in SCHEDULES, a warm-up and the schedule's own arguments.

    The warm-up's length is `warmup_steps` or `warmup_epochs`.
    """

    name: str = "cosine"
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    warmup: Literal["linear", "constant"] = "linear"
    warmup_start: float = 0.0
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class LoopRecipe:
    """How long and how: optimizer steps, or `epochs` where `steps` is 0.

    `batch_size` is the global batch, the images of one step on all devices together; a device that cannot take its
    equal part at once takes `device_batch` images at a time and accumulates their gradients (0: all at once).

    `shard_backbone` splits weights, gradients and optimizer state over the processes (FSDP2); `wccn_ridge`, a ridge
    above 0, folds a within-class whitening into the finished network. `keep` is how many checkpoints stay as model
    folders in `models/`.
    """

    batch_size: int = 64
    steps: int = 0
    epochs: float = 0.0
    device_batch: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    ema: float = 0.0
    wccn_ridge: float = 0.0
    channels_last: bool = True
    compile: bool = False
    shard_backbone: bool = False
    device: str = "auto"
    threads: int = 0
    freeze_backbone_steps: int = 0
    log_every: int = 20
    checkpoint_every: int = 1000
    keep: int = 0
    max_skipped_steps: int = 25


@dataclass
class EvaluateRecipe:
    """Judging during training: every `every` steps or epochs (`unit`; 0: at the end only) on `pairs` of `source`.

    `valid` is a list `path label` of further pictures of the people trained on: the share that the head puts first is
    the top-1 accuracy, and the best model is then the one where it is highest.
    With neither, the identities of `data.held_out` are compared; without a source of pictures, `synthetic_identities`
    generated people the training never saw; 0: no evaluation.
    `dialect` says how the lists are written, where they differ from LFW's.
    `retention_pairs` of `retention_source` are pairs the model given as `init` should not get worse on: the forgetting
    check.
    """

    source: str = ""
    pairs: str = ""
    valid: str = ""
    every: int = 0
    unit: Literal["step", "epoch"] = "step"
    dialect: Dialect = field(default_factory=Dialect)
    retention_source: str = ""
    retention_pairs: str = ""
    synthetic_identities: int = 0
    synthetic_images: int = 8
    synthetic_pairs: int = 3000
    synthetic_folds: int = 10


@dataclass
class Recipe:
    """One reproducible training run."""

    name: str = "unnamed"
    seed: int = 0
    init: str = ""
    license: str = "not stated"
    training_data: str = ""
    data: DataRecipe = field(default_factory=DataRecipe)
    preprocess: PreprocessRecipe = field(default_factory=PreprocessRecipe)
    augment: Augmentation = field(default_factory=Augmentation)
    backbone: BackboneRecipe = field(default_factory=BackboneRecipe)
    head: HeadRecipe = field(default_factory=HeadRecipe)
    triplet: TripletRecipe = field(default_factory=TripletRecipe)
    finetune: FinetuneRecipe = field(default_factory=FinetuneRecipe)
    distill: DistillRecipe = field(default_factory=DistillRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    evaluate: EvaluateRecipe = field(default_factory=EvaluateRecipe)

    def to_yaml(self) -> str:
        """The recipe as YAML, every field written out."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)


def recipe_names() -> list[str]:
    """The names of the recipes that come with visavis."""
    return sorted(p.name.removesuffix(".yaml") for p in resources.files(RECIPES).iterdir() if p.name.endswith(".yaml"))


def recipe_text(name_or_path: str) -> str:
    """The YAML of a recipe, by its name or a path.

    Raises:
        RecipeError: neither.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot read the recipe ({error})") from error
    if name_or_path not in recipe_names():
        raise RecipeError(unknown_name("recipe", name_or_path, recipe_names()) + "; or give a .yaml file")
    return resources.files(RECIPES).joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), *, kept: bool = False) -> Recipe:
    """Read a recipe and apply `--section.field value` overrides.

    Raises:
        RecipeError: not YAML, an unknown key (the nearest valid one is named) or a value of the wrong type.
    """
    values = read_yaml(recipe_text(name_or_path), name=name_or_path) or {}
    return parse_recipe(values, overrides, name=name_or_path, kept=kept)


def parse_recipe(values: Any, overrides: Sequence[str] = (), *, name: str = "recipe", kept: bool = False) -> Recipe:
    """Check plain values and overrides against the types of `Recipe`; see `load_recipe`.

    A recipe `kept` by a run has every field written out, and what of it is a wish cannot be told.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"{name}: expected sections like 'optimizer:', got {type(values).__name__}")
    values, overrides = present_keys(values, name=name), present_flags(overrides)
    overrides = with_own_data(values, overrides, kept=kept)
    _check_keys(Recipe, values, name, "")
    _check_flags(overrides)
    jsonargparse = import_runtime("jsonargparse")
    parser = jsonargparse.ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(Recipe, fail_untyped=True)
    try:
        parsed = parser.parse_args(list(overrides), namespace=parser.parse_object(dict(values)))
        built = parser.instantiate(parsed)
        recipe = Recipe(**{f.name: built[f.name] for f in dataclasses.fields(Recipe)})
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise RecipeError(f"{name}: {' '.join(str(error).split())}") from error
    _check_values(recipe, name)
    sections = {"backbone": recipe.backbone, "preprocess": recipe.preprocess}
    return dataclasses.replace(recipe, **settled(recipe.init, sections, {} if kept else values, overrides, name=name))


def _sections(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _check_keys(cls: type, values: Mapping[str, Any], name: str, prefix: str) -> None:
    sections = _sections(cls)
    for key, value in values.items():
        if prefix + str(key) in GONE:
            raise RecipeError(f"{name}: {prefix}{key} is gone: {GONE[prefix + str(key)]}")
        if key not in sections:
            every = [prefix + k for k in sections] if prefix else _all_keys(Recipe)
            raise RecipeError(f"{name}: {unknown_name('key', prefix + str(key), every)}")
        if dataclasses.is_dataclass(sections[key]):
            if not isinstance(value, Mapping):
                raise RecipeError(f"{name}: {prefix}{key} is a section with keys, got {value!r}")
            _check_keys(typing.cast(type, sections[key]), value, name, f"{prefix}{key}.")


def _all_keys(cls: type, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, kind in _sections(cls).items():
        keys += (
            _all_keys(typing.cast(type, kind), f"{prefix}{key}.") if dataclasses.is_dataclass(kind) else [prefix + key]
        )
    return keys


def _check_flags(overrides: Sequence[str]) -> None:
    keys = _all_keys(Recipe)
    for word in overrides:
        if word.startswith("--"):
            key = word[2:].split("=")[0]
            if key == GENERATED:
                continue
            if key in GONE:
                raise RecipeError(f"--{key} is gone: {GONE[key]}")
            base = next((k for k in keys if key == k or key.startswith(k + ".")), None)
            if base is None:
                raise RecipeError(unknown_name("option", key, keys))


def _leaves(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a recipe with its dotted key, those inside lists and mappings too."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        section = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
    if isinstance(section, Mapping):
        for key, value in section.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(section, list | tuple):
        for value in section:
            yield from _leaves(value, prefix)
    else:
        yield prefix, section


def _check_values(recipe: Recipe, name: str) -> None:
    """Ranges that no type can say."""
    for key, value in _leaves(recipe):
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{name}: {key} must be finite, got {value}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise RecipeError(f"{name}: {key} must lie within 64 bits, got a number of {len(str(abs(value)))} digits")
    loop, optimizer = recipe.loop, recipe.optimizer
    wrong = [
        (
            f"name becomes a folder's, so it holds no / or \\ and no leading dot, got {recipe.name!r:.60}",
            not re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,120}", recipe.name),
        ),
        ("loop.batch_size must be at least 2 (batch norm)", loop.batch_size < 2),
        ("data.held_out must lie in [0, 1)", not 0 <= recipe.data.held_out < 1),
        ("data.skip_damaged must not be negative", recipe.data.skip_damaged < 0),
        ("data.fingerprints must not be negative", recipe.data.fingerprints < 0),
        ("loop.steps and loop.epochs must not be negative", loop.steps < 0 or loop.epochs < 0),
        ("one of loop.steps and loop.epochs must be set", loop.steps == 0 and loop.epochs == 0),
        ("loop.device_batch must be 0 (all at once) or at least 2", loop.device_batch < 0 or loop.device_batch == 1),
        ("loop.ema must lie in [0, 1)", not 0 <= loop.ema < 1),
        (
            "loop.shard_backbone goes with fp32 or bf16 and without loop.ema",
            loop.shard_backbone and bool(loop.ema or loop.precision == "fp16"),
        ),
        ("loop.wccn_ridge must not be negative", loop.wccn_ridge < 0),
        ("loop.keep must not be negative", loop.keep < 0),
        ("loop.checkpoint_every and loop.log_every must be at least 1", min(loop.checkpoint_every, loop.log_every) < 1),
        ("loop.wccn_ridge goes without loop.shard_backbone", bool(loop.wccn_ridge) and loop.shard_backbone),
        ("optimizer.lr must be positive", not optimizer.lr > 0),
        ("optimizer.weight_decay must not be negative", optimizer.weight_decay < 0),
        ("head.sample_rate must lie in (0, 1]", not 0 < recipe.head.sample_rate <= 1),
        (
            "one of head, triplet and distill is needed",
            recipe.head.name == "none" and recipe.triplet.weight == 0 and not recipe.distill.teacher,
        ),
        (
            "distill.weight and distill.relational must not be negative, one of them positive",
            min(recipe.distill.weight, recipe.distill.relational) < 0
            or max(recipe.distill.weight, recipe.distill.relational) == 0,
        ),
        (
            "distill.teacher goes with triplet.pool online: a pool keeps no crops for a teacher",
            bool(recipe.distill.teacher and recipe.triplet.weight) and recipe.triplet.pool != "online",
        ),
        (
            "finetune.init_head takes class centers from a run: --init RUN",
            recipe.finetune.init_head and not recipe.init,
        ),
        (
            "finetune.imprint and finetune.init_head set class centers, but the recipe has head.name none",
            recipe.head.name == "none" and (recipe.finetune.imprint or recipe.finetune.init_head),
        ),
        ("finetune.imprint_images must be at least 1", recipe.finetune.imprint_images < 1),
        ("finetune.lora.rank must not be negative", recipe.finetune.lora.rank < 0),
        ("finetune.wise_ft_alpha must lie in (0, 1]", not 0 < recipe.finetune.wise_ft_alpha <= 1),
        (
            "finetune.wise_ft_alpha needs a model to blend with: --init MODEL",
            recipe.finetune.wise_ft_alpha < 1 and not recipe.init,
        ),
        (
            "data.source or data.synthetic.identities is needed",
            not recipe.data.source and recipe.data.synthetic.identities < 1,
        ),
    ]
    for message, is_wrong in wrong:
        if is_wrong:
            raise RecipeError(f"{name}: {message}")
    try:
        recipe.preprocess.spec()
    except ModelFormatError as error:
        raise RecipeError(f"{name}: {error}") from error
