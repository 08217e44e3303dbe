"""Which layers int8 hurts, and how many stay in float."""

import pytest

from visavis.errors import ModelFormatError
from visavis.export.formats.base import Options
from visavis.export.formats.float_graph import float_onnx
from visavis.export.gates.sensitivity import layers_of, rank_layers, satisfy_accuracy_budget
from visavis.export.model import open_model


def test_layers_are_ranked_by_the_damage_they_do(small_folder, faces):
    graph = float_onnx(open_model(small_folder), Options())
    names = [node.name for node in layers_of(graph)]
    assert len(names) == 9
    ruined = next(node for node in graph.graph.node if node.name == names[3])
    weight = next(t for t in graph.graph.initializer if t.name == ruined.input[1])
    from onnx import numpy_helper

    value = numpy_helper.to_array(weight).copy()
    value[:, 0, 0, 0] *= 500  # one huge value per channel leaves nothing for the others
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    ranked = rank_layers(graph, faces.images[:4])
    assert sorted(ranked) == sorted(names)
    assert ranked[0] == names[3]


class Judged:
    def __init__(self, accuracy):
        self.accuracy = accuracy


def test_layers_return_to_float_until_the_budget_holds(monkeypatch):
    tried = []

    def build(float_layers):
        tried.append(list(float_layers))
        return len(float_layers), Judged(0.98 - 0.01 / (1 + len(float_layers)) ** 2)

    monkeypatch.setattr(
        "visavis.export.gates.sensitivity.evaluate_pairs", lambda embedder, _: {"accuracy": embedder.accuracy}
    )
    arguments = {"reference_accuracy": {"accuracy": 0.98}, "pairs": object(), "progress": lambda _: None}
    artifact, kept, _ = satisfy_accuracy_budget(build, lambda: list("abcdefgh"), max_drop=0.1, **arguments)
    assert tried == [[], ["a"], ["a", "b"], ["a", "b", "c", "d"]]
    assert (artifact, kept) == (4, ["a", "b", "c", "d"])
    with pytest.raises(ModelFormatError, match="whatever stays in float"):
        satisfy_accuracy_budget(build, lambda: list("ab"), max_drop=0.001, **arguments)
