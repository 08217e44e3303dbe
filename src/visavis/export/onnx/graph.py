"""A thin view of an ONNX graph: constants as arrays, who makes and who uses a value, edits that keep both in step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, helper, numpy_helper

Array = npt.NDArray[Any]


class EditableGraph:
    """An editable view of `model.graph`; the model itself is changed in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in list(self.nodes):
            if node.op_type == "Constant":
                value = next((a for a in node.attribute if a.name == "value"), None)
                if value is not None:
                    self.constants[node.output[0]] = numpy_helper.to_array(value.t)
                    self.nodes.remove(node)
        self.outputs = {o.name for o in model.graph.output}

    def maker(self, name: str) -> NodeProto | None:
        """The node that makes a value, None for inputs and constants."""
        return next((n for n in self.nodes if name in n.output), None)

    def users(self, name: str) -> list[NodeProto]:
        """The nodes that read a value."""
        return [n for n in self.nodes if name in n.input]

    def only_user(self, name: str) -> NodeProto | None:
        """The single node that reads a value, None when there are several or it is an output of the graph."""
        users = self.users(name)
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def constant(self, name: str) -> Array | None:
        """A constant's array, also through an Identity; of any shape (N, ...)."""
        node = self.maker(name)
        if node is not None and node.op_type == "Identity":
            return self.constant(node.input[0])
        return self.constants.get(name)

    def add_constant(self, base: str, value: Array) -> str:
        """Store a constant under a fresh name; of any shape (N, ...)."""
        name, i = base, 0
        while name in self.constants:
            i += 1
            name = f"{base}_{i}"
        self.constants[name] = value
        return name

    def insert_after(self, node: NodeProto, new: NodeProto) -> None:
        """Put a node behind another."""
        self.nodes.insert(self.nodes.index(node) + 1, new)

    def remove(self, node: NodeProto) -> None:
        """Take a node out whose output nobody reads any more."""
        self.nodes.remove(node)

    def rename(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.nodes:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new

    def of_type(self, kind: str) -> Iterator[NodeProto]:
        """The nodes of one operator; the list may be edited meanwhile."""
        yield from [n for n in self.nodes if n.op_type == kind]

    def finish(self) -> onnx.ModelProto:
        """Write nodes and the constants still used back into the model."""
        used = {name for node in self.nodes for name in node.input} | self.outputs
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value, order="C"), name)
            for name, value in self.constants.items()
            if name in used
        )
        del graph.value_info[:]
        return self.model


def shorten(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every value inside the graph a short name; exporters' long ones are a tenth of a small int8 file.

    Inputs, outputs and the nodes' own names stay. The model is edited in place.
    """
    graph = model.graph
    short: dict[str, str] = {value.name: value.name for value in (*graph.input, *graph.output)}
    short[""] = ""  # an input left out

    def renamed(name: str) -> str:
        return short.setdefault(name, f"t{len(short)}")

    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = renamed(name)
    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    del graph.value_info[:]
    return model


def makers_of(model: onnx.ModelProto, output: str) -> list[str]:
    """Names of the nodes that make one output of a graph and nothing else: the way back to what others read too."""
    graph = EditableGraph(onnx.ModelProto.FromString(model.SerializeToString()))
    found, name = [], output
    while (node := graph.maker(name)) is not None and (name == output or graph.only_user(name) is not None):
        found.append(node.name)
        name = node.input[0]
    return found


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    for a in node.attribute:
        if a.name == name:
            return helper.get_attribute_value(a)
    return default


def label(node: NodeProto) -> str:
    """How errors and reports call a node."""
    return f"{node.op_type} {node.name or node.output[0]}"
