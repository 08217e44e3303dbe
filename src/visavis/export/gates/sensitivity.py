"""Which layers suffer most from int8, and how many must stay in float until an accuracy budget holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import NodeProto, helper

from visavis.errors import ModelFormatError
from visavis.export.gates.accuracy import PairSet, evaluate_pairs
from visavis.export.onnx.graph import Array, EditableGraph
from visavis.metrics.similarity import unit_rows
from visavis.runtimes import onnx_session
from visavis.types import Embedder

LAYERS = ("Conv", "Gemm", "MatMul")
T = TypeVar("T")


def layers_of(model: onnx.ModelProto) -> list[NodeProto]:
    """The convolutions and dense layers with constant weights, in order."""
    graph = EditableGraph(onnx.ModelProto.FromString(model.SerializeToString()))
    return [n for n in graph.nodes if n.op_type in LAYERS and n.input[1] in graph.constants]


def rank_layers(model: onnx.ModelProto, batch: Array) -> list[str]:
    """Layer names, most sensitive first: the mean 1 − cos of the embedding when that layer alone is int8.

    Shapes: `batch` (N, ...).

        x → Δ·(clip(round(x/Δ) + z, 0, 255) − z) on the layer's input, W → Δ_c·clip(round(W/Δ_c), ±127) per channel

    Args:
        model: the float32 graph.
        batch: crops in the graph's own layout.
    """
    names = [node.name for node in layers_of(model)]
    inputs = {node.name: node.input[0] for node in layers_of(model)}
    ranges = _ranges(model, sorted(set(inputs.values())), batch)
    base = unit_rows(_run(model, batch).astype(np.float64))
    damage = {}
    for name in names:
        embedded = unit_rows(_run(_with_int8(model, name, ranges[inputs[name]]), batch).astype(np.float64))
        damage[name] = float(np.mean(0.5 * ((embedded - base) ** 2).sum(1)))
    return sorted(names, key=lambda name: -damage[name])


def _run(model: onnx.ModelProto, batch: Array, outputs: Sequence[str] = ("embedding",)) -> Any:
    session = onnx_session(model.SerializeToString())
    known = [o.name for o in session.get_outputs()]
    wanted = [name for name in outputs if name in known] or known[:1]
    got = session.run(wanted, {session.get_inputs()[0].name: batch})
    return got if len(outputs) > 1 else got[0]


def _ranges(model: onnx.ModelProto, tensors: Sequence[str], batch: Array) -> dict[str, tuple[float, float]]:
    exposed = onnx.ModelProto.FromString(model.SerializeToString())
    own = {o.name for o in exposed.graph.output}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=t) for t in tensors if t not in own)
    values = _run(exposed, batch, [*tensors, next(iter(own))])
    return {t: (min(0.0, float(v.min())), max(0.0, float(v.max()))) for t, v in zip(tensors, values, strict=False)}


def _with_int8(model: onnx.ModelProto, name: str, span: tuple[float, float]) -> onnx.ModelProto:
    graph = EditableGraph(onnx.ModelProto.FromString(model.SerializeToString()))
    node = next(n for n in graph.nodes if n.name == name)
    step = max((span[1] - span[0]) / 255, 1e-12)
    scale = graph.add_constant("probe_scale", np.array(step, np.float32))
    zero = graph.add_constant("probe_zero", np.array(np.clip(round(-span[0] / step), 0, 255), np.uint8))
    at = graph.nodes.index(node)
    graph.nodes[at:at] = [
        helper.make_node("QuantizeLinear", [node.input[0], scale, zero], ["probe_q"]),
        helper.make_node("DequantizeLinear", ["probe_q", scale, zero], ["probe_x"]),
    ]
    weight = graph.constants[node.input[1]].astype(np.float64)
    axes = tuple(range(1, weight.ndim)) if node.op_type == "Conv" else None
    delta = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-12) / 127
    node.input[1] = graph.add_constant(
        "probe_w", (np.clip(np.round(weight / delta), -127, 127) * delta).astype(np.float32)
    )
    node.input[0] = "probe_x"
    return graph.finish()


def satisfy_accuracy_budget(
    build: Callable[[list[str]], tuple[T, Embedder]],
    ranked: Callable[[], list[str]],
    *,
    reference_accuracy: dict[str, Any] | None,
    pairs: PairSet | None,
    max_drop: float | None,
    progress: Callable[[str], None],
) -> tuple[T, list[str], dict[str, Any] | None]:
    """Quantize with 0, 1, 2, 4, 8 ... of the most sensitive layers left in float until the accuracy budget holds.

    Args:
        build: quantizes with the named layers left in float; gives the artifact and an embedder of it.
        ranked: layer names, most sensitive first; called only when the budget does not hold at once.
        reference_accuracy: what the weights reach on `pairs`.
        pairs: the pair set; without one the first artifact is taken as it is.
        max_drop: points of accuracy that may be lost; None = any.
        progress: told of each try.

    Returns:
        The artifact, the layers left in float, and its judgment on the pairs.

    Raises:
        ModelFormatError: even with every layer but a few in float the budget does not hold.
    """
    float_layers: list[str] = []
    order: list[str] = []
    while True:
        artifact, embedder = build(float_layers)
        if pairs is None or reference_accuracy is None:
            return artifact, float_layers, None
        found = evaluate_pairs(embedder, pairs)
        lost = 100 * (reference_accuracy["accuracy"] - found["accuracy"])
        progress(
            f"int8 with {len(float_layers)} layers in float: {100 * found['accuracy']:.2f} %, {lost:+.2f} points lost"
        )
        if max_drop is None or lost <= max_drop + 1e-9:
            return artifact, float_layers, found
        order = order or ranked()
        if len(float_layers) >= len(order):
            raise ModelFormatError(f"int8 loses {lost:.2f} points whatever stays in float; allowed are {max_drop:g}")
        float_layers = order[: max(1, 2 * len(float_layers))]


def describe(names: Sequence[str]) -> str:
    """A short list of layers for the user."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "none"
