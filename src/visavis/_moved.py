"""Names of the release before: paths, names and arguments lead to the present ones, with a warning, for one release."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MOVED = {
    "visavis.backbones.checkpoints": "visavis.models.checkpoints",
    "visavis.backbones.models": "visavis.models.torch",
    "visavis.backbones.published": "visavis.models.published",
    "visavis.card": "visavis.models.card",
    "visavis.data.augmentation": "visavis.data.augment.augmentation",
    "visavis.data.bin_sets": "visavis.data.sources.bin",
    "visavis.data.cache": "visavis.data.decoded_cache.cache",
    "visavis.data.cache_policy": "visavis.data.decoded_cache.policy",
    "visavis.data.duplicates": "visavis.data.validate.duplicates",
    "visavis.data.fingerprints": "visavis.data.validate.fingerprints",
    "visavis.data.folder": "visavis.data.sources.folder",
    "visavis.data.generic_head": "visavis.data.augment.generic_head",
    "visavis.data.label_errors": "visavis.data.validate.label_errors",
    "visavis.data.lists": "visavis.data.sources.lists",
    "visavis.data.look_alikes": "visavis.data.validate.near_duplicates",
    "visavis.data.pair_dialect": "visavis.data.pair_lists.dialect",
    "visavis.data.pair_sets": "visavis.data.pair_lists.benchmarks",
    "visavis.data.pairs": "visavis.data.pair_lists.reader",
    "visavis.data.plain_pickle": "visavis.data.sources.plain_pickle",
    "visavis.data.record_source": "visavis.data.sources.rec",
    "visavis.data.record_writer": "visavis.data.sources.rec_writer",
    "visavis.data.recordio": "visavis.data.sources.recordio",
    "visavis.data.sheets": "visavis.data.contact_sheets",
    "visavis.data.synthetic": "visavis.synthetic",
    "visavis.data.synthetic.camera": "visavis.synthetic.camera",
    "visavis.data.synthetic.clips": "visavis.synthetic.clips",
    "visavis.data.synthetic.conditions": "visavis.synthetic.conditions",
    "visavis.data.synthetic.geometry": "visavis.synthetic.geometry",
    "visavis.data.synthetic.identity": "visavis.synthetic.identity",
    "visavis.data.synthetic.many": "visavis.synthetic.parallel",
    "visavis.data.synthetic.moving": "visavis.synthetic.expression",
    "visavis.data.synthetic.paint": "visavis.synthetic.texture",
    "visavis.data.synthetic.rays": "visavis.synthetic.rays",
    "visavis.data.synthetic.render": "visavis.synthetic.render",
    "visavis.data.synthetic.scenes": "visavis.synthetic.scenes",
    "visavis.data.synthetic.store": "visavis.synthetic.store",
    "visavis.data.synthetic.worn": "visavis.synthetic.accessories",
    "visavis.data.validate_page": "visavis.data.validate.page",
    "visavis.data.youtube_faces": "visavis.data.sources.youtube_faces",
    "visavis.data.youtube_split": "visavis.data.sources.youtube_split",
    "visavis.deploy.answers": "visavis.deploy.json_views",
    "visavis.deploy.approximate": "visavis.deploy.gallery.approximate",
    "visavis.deploy.binding": "visavis.deploy.gallery.model_identity",
    "visavis.deploy.curation": "visavis.deploy.gallery.maintenance",
    "visavis.deploy.embedders": "visavis.models.load",
    "visavis.deploy.enrolling": "visavis.deploy.enrollment",
    "visavis.deploy.erasure": "visavis.deploy.gallery.erasure",
    "visavis.deploy.faces": "visavis.deploy.face",
    "visavis.deploy.foreign": "visavis.models.import_onnx",
    "visavis.deploy.gallery_base": "visavis.deploy.gallery.base",
    "visavis.deploy.index": "visavis.deploy.gallery.index",
    "visavis.deploy.locks": "visavis.deploy.gallery.locks",
    "visavis.deploy.machine": "visavis.deploy.system_info",
    "visavis.deploy.openvino": "visavis.models.openvino",
    "visavis.deploy.operators": "visavis.models.onnx_errors",
    "visavis.deploy.pgvector": "visavis.deploy.gallery.postgres",
    "visavis.deploy.records": "visavis.deploy.gallery.records",
    "visavis.deploy.sealing": "visavis.deploy.gallery.encryption",
    "visavis.deploy.server.desk": "visavis.deploy.server.handlers",
    "visavis.deploy.server.metrics": "visavis.deploy.server.telemetry",
    "visavis.deploy.server.security": "visavis.deploy.server.admission",
    "visavis.deploy.sheet": "visavis.deploy.contact_image",
    "visavis.deploy.store": "visavis.deploy.gallery.sqlite_file",
    "visavis.deploy.topk": "visavis.deploy.gallery.topk",
    "visavis.deploy.unknowns": "visavis.deploy.gallery.unknowns",
    "visavis.deploy.vectors": "visavis.deploy.gallery.vectors",
    "visavis.evaluate.baseline": "visavis.evaluate.pixel_baseline",
    "visavis.evaluate.calibrated": "visavis.evaluate.calibrate",
    "visavis.evaluate.calibration": "visavis.metrics.calibration",
    "visavis.evaluate.closed_set": "visavis.evaluate.protocols.closed_set",
    "visavis.evaluate.comparison": "visavis.evaluate.compare.comparison",
    "visavis.evaluate.curves": "visavis.metrics.error_rates",
    "visavis.evaluate.distractors": "visavis.metrics.distractors",
    "visavis.evaluate.evaluated": "visavis.evaluate.compare.saved",
    "visavis.evaluate.folds": "visavis.metrics.kfold",
    "visavis.evaluate.gallery_probe": "visavis.evaluate.protocols.identification",
    "visavis.evaluate.group_pairs": "visavis.evaluate.protocols.groups",
    "visavis.evaluate.groups": "visavis.metrics.groups",
    "visavis.evaluate.hardest": "visavis.evaluate.compare.hardest",
    "visavis.evaluate.identification": "visavis.metrics.identification",
    "visavis.evaluate.ijb": "visavis.evaluate.protocols.ijb",
    "visavis.evaluate.integer_lists": "visavis.evaluate.protocols.integer_lists",
    "visavis.evaluate.joint_bayesian": "visavis.metrics.joint_bayesian",
    "visavis.evaluate.joint_pairs": "visavis.evaluate.protocols.joint_bayesian",
    "visavis.evaluate.loading": "visavis.evaluate.protocols.loading",
    "visavis.evaluate.page": "visavis.evaluate.report.page",
    "visavis.evaluate.pair_sets": "visavis.evaluate.protocols.pair_sets",
    "visavis.evaluate.paired": "visavis.metrics.paired_tests",
    "visavis.evaluate.paired_templates": "visavis.evaluate.compare.templates",
    "visavis.evaluate.pairs": "visavis.evaluate.protocols.pairs",
    "visavis.evaluate.plots": "visavis.evaluate.report.plots",
    "visavis.evaluate.probability": "visavis.metrics.score_calibration",
    "visavis.evaluate.protocol": "visavis.evaluate.protocols.base",
    "visavis.evaluate.seeds": "visavis.evaluate.compare.seeds",
    "visavis.evaluate.statistics": "visavis.metrics.intervals",
    "visavis.evaluate.tables": "visavis.evaluate.report.tables",
    "visavis.evaluate.template_pairs": "visavis.evaluate.protocols.template_verification",
    "visavis.evaluate.template_search": "visavis.evaluate.protocols.template_identification",
    "visavis.evaluate.templates": "visavis.metrics.fusion",
    "visavis.evaluate.training": "visavis.evaluate.report.training_curves",
    "visavis.evaluate.verification": "visavis.metrics.verification",
    "visavis.export.accuracy": "visavis.export.gates.accuracy",
    "visavis.export.bundle": "visavis.export.edge_bundle",
    "visavis.export.compact": "visavis.export.onnx.compact",
    "visavis.export.folding": "visavis.export.onnx.batchnorm_folding",
    "visavis.export.graph": "visavis.export.onnx.graph",
    "visavis.export.half": "visavis.export.onnx.half",
    "visavis.export.mindir": "visavis.export.formats.mindir",
    "visavis.export.mindspore_cells": "visavis.export.formats.mindspore_cells",
    "visavis.export.onnx_file": "visavis.export.formats.onnx",
    "visavis.export.onnx_io": "visavis.export.onnx.files",
    "visavis.export.openvino_file": "visavis.export.formats.openvino",
    "visavis.export.parity": "visavis.export.gates.parity",
    "visavis.export.prelu": "visavis.export.onnx.prelu",
    "visavis.export.quantize": "visavis.export.formats.onnx_int8",
    "visavis.export.quantize_openvino": "visavis.export.formats.openvino_int8",
    "visavis.export.sensitivity": "visavis.export.gates.sensitivity",
    "visavis.export.torch_program": "visavis.export.formats.torch_program",
    "visavis.heads": "visavis.losses.heads",
    "visavis.heads.adacos": "visavis.losses.heads.adacos",
    "visavis.heads.adaface": "visavis.losses.heads.adaface",
    "visavis.heads.angles": "visavis.losses.angles",
    "visavis.heads.arcface": "visavis.losses.heads.arcface",
    "visavis.heads.asoftmax": "visavis.losses.heads.asoftmax",
    "visavis.heads.combined": "visavis.losses.heads.combined",
    "visavis.heads.cosface": "visavis.losses.heads.cosface",
    "visavis.heads.cosines": "visavis.losses.partial_fc.cosines",
    "visavis.heads.curricularface": "visavis.losses.heads.curricularface",
    "visavis.heads.elasticface": "visavis.losses.heads.elasticface",
    "visavis.heads.head": "visavis.losses.head",
    "visavis.heads.magface": "visavis.losses.heads.magface",
    "visavis.heads.margin_softmax": "visavis.losses.partial_fc.margin_softmax",
    "visavis.heads.mv_softmax": "visavis.losses.heads.mv_softmax",
    "visavis.heads.normface": "visavis.losses.heads.normface",
    "visavis.heads.ranks": "visavis.distributed.collectives",
    "visavis.heads.regularisers": "visavis.losses.partial_fc.regularizers",
    "visavis.heads.rows": "visavis.losses.partial_fc.sparse_sgd",
    "visavis.heads.sampling": "visavis.losses.partial_fc.sampling",
    "visavis.heads.shards": "visavis.losses.partial_fc.sharded_checkpoint",
    "visavis.heads.softmax": "visavis.losses.heads.softmax",
    "visavis.heads.sphereface2": "visavis.losses.heads.sphereface2",
    "visavis.heads.sphereface_r": "visavis.losses.heads.sphereface_r",
    "visavis.heads.stream": "visavis.losses.partial_fc.chunked_softmax",
    "visavis.heads.subcentre": "visavis.losses.heads.subcenter",
    "visavis.heads.uniface": "visavis.losses.heads.uniface",
    "visavis.train.before_after": "visavis.train.finetune.before_after",
    "visavis.train.curves": "visavis.train.lr_curves",
    "visavis.train.device": "visavis.distributed.device",
    "visavis.train.distill": "visavis.train.finetune.distillation",
    "visavis.train.distributed": "visavis.distributed.launch",
    "visavis.train.judge": "visavis.train.validation",
    "visavis.train.logbook": "visavis.train.run_logger",
    "visavis.train.lora": "visavis.train.finetune.lora",
    "visavis.train.optim": "visavis.train.optimizers",
    "visavis.train.pictures": "visavis.train.dataset",
    "visavis.train.triplet": "visavis.train.triplet_pools",
    "visavis.train.whitening": "visavis.train.finetune.whitening",
    "visavis.triplets": "visavis.losses.triplets",
    "visavis.triplets.batch_miners": "visavis.losses.triplets.batch_miners",
    "visavis.triplets.distances": "visavis.losses.triplets.distances",
    "visavis.triplets.gather": "visavis.distributed.gather",
    "visavis.triplets.loss": "visavis.losses.triplets.loss",
    "visavis.triplets.miners": "visavis.losses.triplets.miners",
    "visavis.triplets.pair_miners": "visavis.losses.triplets.pair_miners",
    "visavis.triplets.pools": "visavis.losses.triplets.pools",
    "visavis.triplets.rows": "visavis.losses.triplets.row_reductions",
    "visavis.triplets.strips": "visavis.losses.triplets.triplet_images",
    "visavis.triplets.view": "visavis.losses.triplets.masked_distances",
    "visavis.vision.detection_anchors": "visavis.vision.detection.yunet_scrfd",
    "visavis.vision.detection_mtcnn": "visavis.vision.detection.mtcnn",
}


class MovedModules:
    """Finds a module by its former name; no subclass of importlib.abc's, whose import takes 30 ms."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """A spec for a former name, None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None  # pyright: ignore[reportArgumentType]

    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that took its place into `sys.modules`."""
        _warn(module.__name__, MOVED[module.__name__], stacklevel=3)
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def former_names(package: str, module: str) -> Callable[[str], Any]:
    """A `__getattr__` for a room that bears a former module's name: its names are found in `module`, with a warning."""

    def lookup(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = importlib.import_module(module)
        if not hasattr(found, name):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}", f"{module}.{name}", stacklevel=3)
        return getattr(found, name)

    return lookup


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module with renamed names (former -> present): they are found, with a warning."""

    def lookup(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        _warn(f"{module}.{name}", f"{module}.{names[name]}", stacklevel=3)
        return getattr(sys.modules[module], names[name])

    return lookup


def former_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take arguments by their former names, former=present, with a warning.

    Raises:
        TypeError: at a call that gives one argument under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for former in names.keys() & kwargs.keys():
                now, name = names[former], f"{function.__qualname__}()"
                if now in kwargs:
                    raise TypeError(f"{name}: {former} and {now} are one argument; leave {former} out")
                _warn(f"argument {former} of {name}", now, stacklevel=3)
                kwargs[now] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_method(former: str, now: str) -> None:
    """Warn whoever called a property or gave a method by its former name; call it there."""
    _warn(former, now, stacklevel=4)


def _warn(former: str, now: str, *, stacklevel: int) -> None:
    warnings.warn(f"{former} is now {now}; the former name works for one release", DeprecationWarning, stacklevel)


def install() -> None:
    """Let former names be found; before all others, since a former room may be a new room's module."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())  # pyright: ignore[reportArgumentType]
