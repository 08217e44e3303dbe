"""evaluate(): one embedder, one protocol, one report."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visavis.data.validate.trained_on import TrainedOn
from visavis.data.validate.training_overlap import OverlapSearch
from visavis.errors import VisavisError
from visavis.evaluate.cache import EmbeddingCache
from visavis.evaluate.embedding import Embeddings, Images, Progress, embed_images
from visavis.evaluate.environment import describe_model, environment
from visavis.evaluate.pixel_baseline import PixelEmbedder, baseline_table
from visavis.evaluate.presets import get_preset
from visavis.evaluate.protocols.base import ErrorExample, EvaluationProtocol, EvaluationSettings, ProtocolResult, Scores
from visavis.evaluate.protocols.pairs import PairProtocol
from visavis.evaluate.report.figures import ImagePair
from visavis.evaluate.report.report import Report
from visavis.evaluate.score_files import save_scores
from visavis.types import ByteArray, Embedder, Pairs
from visavis.vision.images import encode

_LISTED_FAILURES = 1000


def evaluate(
    embedder: Embedder,
    protocol: EvaluationProtocol | Pairs,
    images: Images,
    *,
    settings: EvaluationSettings | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    cache: EmbeddingCache | None = None,
    scores: str | os.PathLike[str] | None = None,
    model: Mapping[str, Any] | None = None,
    caution: str = "",
    baseline: bool = False,
    trained_on: TrainedOn | None = None,
) -> Report:
    """Judge an embedder by a protocol: every picture is embedded once, scores are saved, then figures are computed.

    Args:
        embedder: aligned uint8 crops (N, H, W, 3) RGB -> float32 (N, D), unit rows.
        protocol: an `EvaluationProtocol`, or `Pairs`.
        images: name -> crop, a mapping or a function; one that raises counts as a failure to acquire.
        settings: preset, bootstrap, seed, rates.
        batch_size: pictures per call of the embedder.
        progress: called with (pictures done, pictures in all).
        cache: embeddings known by the digest of their picture.
        scores: an .npz to write the scores to, before any figure is computed.
        model: more to say of the model in the report (its path, the flip used).
        baseline: judge the raw pixels by the same protocol, as a row beside the model's.
        caution: what must be said of the model before any figure (see `visavis.models.caution`).
        trained_on: what the model was trained on, where that is known: what it shares with the pictures is said.

    Raises:
        ProtocolError: no picture could be embedded, or protocol and preset do not fit.
    """
    settings = settings or EvaluationSettings()
    protocol = PairProtocol.of(protocol) if isinstance(protocol, Pairs) else protocol
    if settings.preset is not None:
        protocol = protocol.by_preset(get_preset(settings.preset).name)
    if trained_on is not None and protocol.is_of_trained_people:
        trained_on = trained_on.without_people()
    search = None if trained_on is None else OverlapSearch(trained_on)
    embedded = embed_images(
        embedder,
        protocol.images,
        images if search is None else search.watching(images),
        batch_size=batch_size,
        progress=progress,
        cache=cache,
        norms=protocol.use_norms or _wants_lengths(settings, embedder),
    )
    found = protocol.score(embedded, settings)
    context: dict[str, Any] = {"data": {**protocol.describe(), "comparisons_digest": _digest(protocol.images, found)}}
    overlap = None if search is None else search.result(protocol.images)
    context["training_overlap"] = None if overlap is None else overlap.to_dict()
    if scores is not None:
        save_scores(scores, found)
        context["scores"] = Path(scores).name
    started = time.perf_counter()
    outcome = protocol.compute_metrics(found, settings)
    judged = time.perf_counter() - started
    tables = outcome.tables
    if baseline:
        pixels = _pixel_outcome(protocol, images, settings)
        context["baseline"] = {"raw pixels": dict(pixels.results)}
        tables = (*tables, baseline_table(outcome.results, pixels.results))
    context |= {
        "failures_to_acquire": _failures(embedded),
        "settings": {"preset": settings.preset, "bootstrap": settings.bootstrap, "seed": settings.seed},
        "seconds": {"embedding": embedded.seconds, "metrics": judged, "cached_embeddings": embedded.cached},
        "environment": environment(),
    }
    return Report(
        protocol=protocol.name,
        model={**describe_model(embedder), **(model or {})},
        results=outcome.results,
        tables=tables,
        plots=outcome.plots,
        images=image_pairs(outcome.mistakes, protocol.images, images),
        context=context,
        scores=found,
        warnings=tuple(filter(None, (caution, overlap.sentence() if overlap else ""))),
    )


def _wants_lengths(settings: EvaluationSettings, embedder: Embedder) -> bool:
    """Whether the preset prints the length of raw features and the embedder can tell it."""
    return settings.preset is not None and get_preset(settings.preset).xnorm and hasattr(embedder, "measure")


def _pixel_outcome(protocol: EvaluationProtocol, images: Images, settings: EvaluationSettings) -> ProtocolResult:
    embedded = embed_images(PixelEmbedder(), protocol.images, images, norms=protocol.use_norms)
    return protocol.compute_metrics(protocol.score(embedded, settings), settings)


def _digest(names: tuple[str, ...], scores: Scores) -> str:
    """What was compared, apart from the model: the pictures' names and every array of whole numbers."""
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=16)
    for name, values in scores.items():
        if values.dtype.kind in "biu":
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _failures(embedded: Embeddings) -> dict[str, Any]:
    listed = dict(list(embedded.failed.items())[:_LISTED_FAILURES])
    return {
        "images": len(embedded.failed),
        "rate": len(embedded.failed) / max(len(embedded), 1),
        "reasons": listed,
        "listed": len(listed),
    }


def image_pairs(mistakes: tuple[ErrorExample, ...], names: tuple[str, ...], images: Images) -> tuple[ImagePair, ...]:
    """The crops of the most telling comparisons; one that cannot be read twice is left out of the page only."""
    get = images.__getitem__ if isinstance(images, Mapping) else images
    pairs = []
    for mistake in mistakes:
        try:
            a, b = (_jpeg(get(names[i])) for i in (mistake.reference, mistake.probe))
        except (VisavisError, OSError, KeyError):
            continue
        caption = (_stem(names[mistake.reference]), _stem(names[mistake.probe]), mistake.caption)
        pairs.append(ImagePair(a, b, caption, mistake.group))
    return tuple(pairs)


def _stem(name: str) -> str:
    """What tells a picture apart: LFW's file names repeat their folder's."""
    return Path(name).stem if Path(name).stem.startswith(Path(name).parent.name) else os.path.splitext(name)[0]


def _jpeg(crop: ByteArray) -> bytes:
    return encode(np.asarray(crop, np.uint8), ".jpg", quality=85)
