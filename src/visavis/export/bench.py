"""How fast a model is in every runtime of this machine: latency, throughput and what it costs in accuracy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visavis.errors import VisavisError
from visavis.files import digest_of
from visavis.machine import instructions, load_average, processor, usable_cores
from visavis.models.card import WEIGHTS, ModelCard
from visavis.models.onnx import OnnxEmbedder
from visavis.types import ByteArray, Embedder


@dataclass(frozen=True)
class RuntimeCandidate:
    """One way to run a model: a runtime, a file of the model folder, a precision and a number of threads."""

    runtime: str
    file: str
    precision: str
    threads: int
    load: Callable[[int], Embedder]


@dataclass(frozen=True)
class Timing:
    """What was measured of one candidate at one batch size; milliseconds per batch, images per second of wall time.

    `cpu_ms` is the processor time of a batch over all threads (the median): on a busy machine it says what wall time
    hides.
    """

    runtime: str
    file: str
    precision: str
    threads: int
    batch: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    images_per_second: float
    bytes: int
    runs: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def candidates_of(folder: Path, card: ModelCard, threads: Sequence[int]) -> tuple[list[RuntimeCandidate], list[str]]:
    """Every way to run a model folder on this machine, and what is missing for the others."""
    found: list[RuntimeCandidate] = []
    missing: list[str] = []
    for count in threads:
        if (folder / WEIGHTS).is_file():
            found.append(RuntimeCandidate("torch", WEIGHTS, "fp32", count, _torch(folder, count)))
        found += [
            RuntimeCandidate("onnxruntime", path.name, _precision(path, card), count, _onnx(path, count))
            for path in sorted(folder.glob("*.onnx"))
            if _is_current(path, card, folder)
        ]
        for path in sorted(folder.glob("*.xml")):
            if not _is_current(path, card, folder):
                continue
            found.append(
                RuntimeCandidate("openvino", path.name, _precision(path, card), count, _openvino(path, count, "f32"))
            )
            if _precision(path, card) == "fp32" and "avx512_bf16" in instructions():
                found.append(RuntimeCandidate("openvino", path.name, "bf16", count, _openvino(path, count, "bf16")))
    for pattern, name in (("*.onnx", "onnx"), ("*.xml", "openvino")):
        if not any(_is_current(p, card, folder) for p in folder.glob(pattern)):
            missing.append(f"no {name} export of these weights: visavis export {folder} --format {name}")
    return found, missing


def _is_current(path: Path, card: ModelCard, folder: Path) -> bool:
    if not (folder / WEIGHTS).is_file():
        return True
    record = card.exports.get(path.name)
    return isinstance(record, dict) and record.get("weights_digest") == card.weights_digest


def _precision(path: Path, card: ModelCard) -> str:
    record = card.exports.get(path.name)
    return str(record.get("precision", "fp32")) if isinstance(record, dict) else "fp32"


def _torch(folder: Path, threads: int) -> Callable[[int], Embedder]:
    def load(batch: int) -> Embedder:
        import torch

        from visavis.models.torch import TorchEmbedder, load_model

        torch.set_num_threads(threads)
        network, card = load_model(folder)
        return TorchEmbedder(network, card.preprocess, batch_size=batch)

    return load


def _onnx(path: Path, threads: int) -> Callable[[int], Embedder]:
    return lambda batch: OnnxEmbedder(path, batch_size=batch, threads=threads)


def _openvino(path: Path, threads: int, precision: str) -> Callable[[int], Embedder]:
    def load(batch: int) -> Embedder:
        from visavis.models.openvino import OpenVinoEmbedder

        return OpenVinoEmbedder(path, batch_size=batch, threads=threads, precision=precision)

    return load


def measure(
    candidates: Sequence[RuntimeCandidate],
    crops: ByteArray,
    *,
    batches: Sequence[int] = (1, 32),
    seconds: float = 2.0,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Timing], list[str]]:
    """Time every candidate at every batch size, in turn and `rounds` times over, so that a busy spell hits all alike.

    Args:
        candidates: from `candidates_of`.
        crops: uint8 (N, H, W, 3) of the model's size; repeated to fill a batch.
        batches: batch sizes.
        seconds: for each candidate and batch size, at least 5 batches per round.
        rounds: how often to come round.
        progress: called with (measurements done, in all).

    Returns:
        Timings in the order of candidates, and what could not be run and why.
    """
    timings: list[Timing] = []
    failed: list[str] = []
    done, total = 0, len(candidates) * len(batches)
    for batch in batches:
        images = np.resize(crops, (batch, *crops.shape[1:]))
        loaded: list[tuple[RuntimeCandidate, Embedder]] = []
        for candidate in candidates:
            try:
                embedder = candidate.load(batch)
                embedder.embed(images)
                loaded.append((candidate, embedder))
            except VisavisError as error:
                failed.append(f"{candidate.runtime} {candidate.file}: {error}")
        walls: list[list[float]] = [[] for _ in loaded]
        cpus: list[list[float]] = [[] for _ in loaded]
        for _ in range(rounds):
            for i, (candidate, embedder) in enumerate(loaded):
                _set_threads(candidate)
                until = time.perf_counter() + seconds / rounds
                least = 5
                while least > 0 or time.perf_counter() < until:
                    wall, cpu = time.perf_counter(), time.process_time()
                    embedder.embed(images)
                    cpus[i].append(time.process_time() - cpu)
                    walls[i].append(time.perf_counter() - wall)
                    least -= 1
                done += 1
                if progress is not None:
                    progress(done, total * rounds)
        timings += [
            _timing(c, batch, np.array(w), np.array(p)) for (c, _), w, p in zip(loaded, walls, cpus, strict=True)
        ]
    return timings, failed


def _set_threads(candidate: RuntimeCandidate) -> None:
    if candidate.runtime == "torch":
        import torch

        torch.set_num_threads(candidate.threads)


def _timing(candidate: RuntimeCandidate, batch: int, walls: np.ndarray, cpus: np.ndarray) -> Timing:
    p50, p95, p99 = (1e3 * np.percentile(walls, (50, 95, 99))).tolist()
    return Timing(
        candidate.runtime,
        candidate.file,
        candidate.precision,
        candidate.threads,
        batch,
        p50,
        p95,
        p99,
        1e3 * float(np.median(cpus)),
        batch / float(np.median(walls)),
        0,
        len(walls),
    )


def sized(timings: Sequence[Timing], folder: Path) -> list[Timing]:
    """The same with the bytes of each file, weights beside it included."""
    result = []
    for t in timings:
        path = folder / t.file
        beside = path.with_suffix(".bin")
        size = path.stat().st_size + (beside.stat().st_size if path.suffix == ".xml" and beside.is_file() else 0)
        result.append(Timing(**{**t.to_dict(), "bytes": size}))
    return result


def pick(timings: Sequence[Timing], card: ModelCard, *, batch: int = 1) -> Timing:
    """The fastest at a batch size by the median wall time, among those that keep the embeddings.

    fp32 always does; int8 and fp16 only when their export was judged on pairs or their parity is recorded; bf16 is the
    machine's own rounding, which no gate has seen, and is never picked by itself.
    """
    fair = [t for t in timings if t.batch == batch and _is_gated(t, card)]
    return min(fair or [t for t in timings if t.batch == batch], key=lambda t: t.p50_ms)


def _is_gated(timing: Timing, card: ModelCard) -> bool:
    if timing.precision == "fp32":
        return True
    record = card.exports.get(timing.file)
    return timing.precision != "bf16" and isinstance(record, dict) and "accuracy" in record


def best_record(timing: Timing, folder: Path) -> dict[str, Any]:
    """What the card keeps of the choice; the recognizer follows it."""
    kept = {"runtime": timing.runtime, "threads": timing.threads, "p50_ms": timing.p50_ms, "batch": timing.batch}
    if timing.runtime != "torch":
        kept |= {"file": timing.file, "digest": digest_of(folder / timing.file)}
    return kept


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": processor(),
        "cores": usable_cores(),
        "instructions": sorted(
            instructions() & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}
        ),
        "load": load_average(),
    }
