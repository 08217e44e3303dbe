import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from visavis.cli import main
from visavis.errors import DataError, ModelFormatError
from visavis.export.edge_bundle import write_bundle
from visavis.export.onnx.files import set_metadata, write_onnx
from visavis.models.card import ModelCard
from visavis.models.load import load_embedder
from visavis.synthetic import face
from visavis.vision.images import write
from visavis.vision.preprocessing import PreprocessSpec


def bare(*command, cwd):
    """Run where only numpy and onnxruntime (and a decoder) may be imported."""
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('visavis', 'torch', 'onnx', 'scipy'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("header", ["2 4", "1 8", "8"])
def test_edge_folder_gives_what_evaluate_gives(header, home, tmp_path, capsys):
    pairs = home / "data" / "pairs.txt"
    pairs.write_text("\n".join([header, *pairs.read_text().splitlines()[1:]]) + "\n")
    bare("preprocess.py", home / "data", tmp_path / "t", "--pairs", pairs, cwd=home / "edge")
    bare("run.py", tmp_path / "t", tmp_path / "f", "--batch", 5, cwd=home / "edge")
    bare(
        "postprocess.py",
        tmp_path / "t",
        tmp_path / "f",
        "--pairs",
        pairs,
        "--json",
        tmp_path / "e.json",
        cwd=home / "edge",
    )
    edge = json.loads((tmp_path / "e.json").read_text())
    out = tmp_path / "v.json"
    command = ["evaluate", str(home / "model"), "--data", str(home / "data"), "--json", str(out)]
    assert main([*command, "--no-baseline", "--bootstrap", "0"]) == 0
    full = json.loads(out.read_text())
    assert edge["accuracy"] == full["accuracy"]["mean"]
    assert edge["std"] == full["accuracy"]["std"]
    assert edge["pairs"] == 16
    said = bare("postprocess.py", tmp_path / "t", tmp_path / "f", "--pairs", pairs, "--threshold", 2, cwd=home / "edge")
    assert json.loads(said)["fnmr"] == 1.0


def test_edge_features_are_the_embedder_s(home, tmp_path):
    bare("preprocess.py", home / "data", tmp_path / "t", cwd=home / "edge")
    bare("run.py", tmp_path / "t", tmp_path / "f", cwd=home / "edge")
    from visavis.vision.images import read

    listed = [line.split("\t") for line in (tmp_path / "t" / "list.txt").read_text().splitlines()]
    assert len(listed) == 16
    raw = np.stack([np.fromfile(tmp_path / "f" / name, np.float32) for name, _ in listed])
    crops = np.stack([read(home / "data" / name) for _, name in listed])
    expected = load_embedder(home / "model").embed(crops)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected, atol=1e-5)


def lopsided(path, spec):
    """A foreign graph that knows left from right: a matrix on normalized pixels."""
    height, width = spec.size
    weight = np.random.default_rng(0).normal(size=(3 * height * width, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["embedding"])],
        "lopsided",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, height, width])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    set_metadata(model, ModelCard("f", "onnx", 4, spec), pixels="normalized")
    write_onnx(path, model)


@pytest.mark.parametrize("template", ["arcface", "sphereface", "sphereface-left"])
@pytest.mark.parametrize("flip", ["none", "sum", "concat"])
def test_edge_folder_of_a_foreign_graph_cuts_and_mirrors_as_the_embedder(template, flip, tmp_path):
    spec = PreprocessSpec((28, 28 if template == "arcface" else 24), template, "BGR", flip=flip)
    lopsided(tmp_path / "model.onnx", spec)
    write_bundle(tmp_path / "edge", tmp_path / "model.onnx")
    crops = np.stack([face(5, 0, i)[0] for i in range(3)])
    for i, crop in enumerate(crops):
        (tmp_path / "faces" / "p").mkdir(parents=True, exist_ok=True)
        write(tmp_path / "faces" / "p" / f"{i}.png", crop)
    bare("preprocess.py", tmp_path / "faces", tmp_path / "t", cwd=tmp_path / "edge")
    bare("run.py", tmp_path / "t", tmp_path / "f", cwd=tmp_path / "edge")
    raw = np.stack([np.fromfile(tmp_path / "f" / f"{i:06d}.bin", np.float32) for i in range(3)])
    expected = load_embedder(tmp_path / "model.onnx").embed(crops)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), expected, atol=1e-5)


def test_bundle_refuses_other_folders_and_files(home, tmp_path, capsys):
    assert main(["export", str(home / "model"), "--format", "openvino", "--bundle", str(tmp_path / "no")]) == 2
    assert "--bundle runs in ONNX Runtime and wants --format onnx" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="new or empty folder"):
        write_bundle(tmp_path / "full", home / "model" / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"wants an \.onnx export"):
        write_bundle(tmp_path / "x", home / "model" / "weights.safetensors")
    write_bundle(home / "edge", home / "model" / "model.onnx")  # an older edge folder is renewed


def _runtime_for_cpp():
    """ONNX Runtime's headers (ONNXRUNTIME_DIR: an unpacked release, or its headers alone) and its library.

    The library of the Python package will do: the C API of a newer one serves programs built with older headers.
    """
    root = Path(os.environ.get("ONNXRUNTIME_DIR", "/usr"))
    places = (root, root / "include", root / "include" / "onnxruntime")
    include = next((p for p in places if (p / "onnxruntime_cxx_api.h").is_file()), None)
    package = Path(onnxruntime.__file__).parent / "capi"
    libraries = [*root.glob("lib*/libonnxruntime.so*"), *package.glob("libonnxruntime.so*")]
    return include, next(iter(libraries), None)


NO_COMPILER = shutil.which("g++") is None or None in _runtime_for_cpp()


@pytest.mark.skipif(NO_COMPILER, reason="needs g++ and ONNX Runtime's headers (ONNXRUNTIME_DIR)")
def test_cpp_example_builds_and_agrees(home, tmp_path):
    include, library = _runtime_for_cpp()
    (tmp_path / "libonnxruntime.so.1").symlink_to(library)  # as it calls itself
    binary = tmp_path / "verify"
    source = home / "edge" / "cpp" / "verify.cpp"
    command = ["g++", "-std=c++17", "-O1", f"-isystem{include}", "-Wall", "-Wextra", "-Werror", source]
    command += [tmp_path / "libonnxruntime.so.1", f"-Wl,-rpath,{tmp_path}", "-o", binary]
    subprocess.run(command, check=True)
    bare("preprocess.py", home / "data", tmp_path / "t", cwd=home / "edge")
    a, b = tmp_path / "t" / "000000.bin", tmp_path / "t" / "000001.bin"
    done = subprocess.run([binary, home / "edge" / "model.onnx", a, b], capture_output=True, text=True, check=True)
    bare("run.py", tmp_path / "t", tmp_path / "f", cwd=home / "edge")
    x, y = (np.fromfile(tmp_path / "f" / p.name, np.float32) for p in (a, b))
    similarity = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert float(done.stdout) == pytest.approx(similarity, abs=1e-5)

    def verify(*arguments):
        done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
        return done.returncode, done.stderr

    model = home / "edge" / "model.onnx"
    assert verify(model, a, b, similarity - 0.01)[0] == 0
    assert verify(model, a, b, similarity + 0.01)[0] == 1
    (tmp_path / "short.bin").write_bytes(a.read_bytes()[:-7])
    code, said = verify(model, a, tmp_path / "short.bin")
    assert code == 2
    assert "short.bin: expected 5760 bytes, got 5753" in said
    code, said = verify(model, a, tmp_path / "none.bin")
    assert (code, "none.bin: cannot read" in said) == (2, True)
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:500])
    assert verify(tmp_path / "cut.onnx", a, b)[0] == 2
