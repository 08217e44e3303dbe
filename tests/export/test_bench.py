"""bench: every runtime timed, the best that passed its gate picked."""

import json

import pytest

from visavis.cli import main
from visavis.export.bench import Timing, _is_current, pick
from visavis.models.card import ModelCard, read_card
from visavis.models.load import load_embedder
from visavis.vision.preprocessing import PreprocessSpec


def test_bench_times_every_runtime_and_saves_the_best(home, tmp_path, capsys):
    out = tmp_path / "bench.json"
    command = ["bench", str(home / "model"), "--threads", "1", "--batch", "1", "--seconds", "0.05", "--save", "--json"]
    assert main([*command, str(out)]) == 0
    found = json.loads(out.read_text())
    assert [t["runtime"] for t in found["timings"]] == ["torch", "onnxruntime"]
    for t in found["timings"]:
        assert 0 < t["p50_ms"] <= t["p95_ms"] <= t["p99_ms"]
        assert t["images_per_second"] == pytest.approx(1000 / t["p50_ms"])
        assert t["bytes"] == (home / "model" / t["file"]).stat().st_size
    best = read_card(home / "model").exports["best"]
    assert best["runtime"] == found["best"]["runtime"]
    expected = {"torch": "TorchEmbedder", "onnxruntime": "OnnxEmbedder"}[best["runtime"]]
    assert type(load_embedder(home / "model")).__name__ == expected
    assert "no openvino export of these weights" in capsys.readouterr().out


def test_only_gated_precisions_are_picked():
    card = ModelCard("m", "small", 4, PreprocessSpec(), exports={"j.onnx": {"accuracy": {}}, "u.onnx": {}})

    def timing(file, precision, ms):
        return Timing("onnxruntime", file, precision, 1, 1, ms, ms, ms, ms, 1.0, 0, 1)

    full, judged = timing("m.onnx", "fp32", 5.0), timing("j.onnx", "int8", 3.0)
    assert pick([full, timing("u.onnx", "int8", 1.0), timing("m.onnx", "bf16", 0.5)], card) == full
    assert pick([full, judged, timing("u.onnx", "int8", 1.0)], card) == judged


def test_bench_table_fits_a_terminal_of_80_columns(capsys):
    from rich.console import Console

    from visavis.cli.bench import _table

    card = ModelCard("m", "small", 4, PreprocessSpec(), exports={"model.int8.onnx": {"accuracy": {"accuracy": 0.98}}})
    slow = Timing("onnxruntime", "model.int8.onnx", "int8", 16, 1024, 9876, 9877, 9878, 9879, 103.7, 199_123_456, 1)
    fast = Timing("torch", "weights.safetensors", "fp32", 1, 1, 1.234, 2.0, 3.0, 1.2, 810.4, 4_000_000, 9)
    Console(width=80).print(_table([slow, fast], slow, card))
    said = capsys.readouterr().out
    assert "…" not in said
    assert "model.int8.onnx int8   16  1024 9876 9877 9878 9879" in said
    assert said.count("98.00") == 1
    assert "1.23" in said


def test_bench_refuses_bad_numbers(home, capsys):
    assert main(["bench", str(home / "model"), "--threads", "x"]) == 2
    assert main(["bench", str(home / "model"), "--batch", "0"]) == 2
    assert main(["bench", str(home / "model" / "model.onnx")]) == 2
    said = capsys.readouterr().err
    assert "--threads: expected whole numbers" in said
    assert "--batch: expected numbers of at least 1" in said
    assert "give the folder" in said


def test_an_export_counts_as_current_where_it_was_made_of_these_weights(tmp_path):
    def card(**exports):
        return ModelCard(
            name="m",
            backbone="small",
            embedding_dim=4,
            preprocess=PreprocessSpec(),
            weights_digest="a",
            exports=exports,
        )

    graph = tmp_path / "model.onnx"
    assert _is_current(graph, card(), tmp_path)  # a folder without weights has nothing newer
    (tmp_path / "weights.safetensors").touch()
    assert not _is_current(graph, card(), tmp_path)
    assert not _is_current(graph, card(**{"model.onnx": "unknown"}), tmp_path)
    assert not _is_current(graph, card(**{"model.onnx": {"weights_digest": "b"}}), tmp_path)
    assert _is_current(graph, card(**{"model.onnx": {"weights_digest": "a"}}), tmp_path)
