"""Former import paths lead to the new rooms, with a warning."""

import importlib
import subprocess
import sys

import pytest

from visavis._moved import MOVED


@pytest.mark.parametrize("former", sorted(MOVED))
def test_a_former_path_gives_the_very_module_and_warns(former):
    pytest.importorskip("mindspore") if MOVED[former].endswith("mindspore_cells") else None
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f"{former} is now {MOVED[former]}"):
        module = importlib.import_module(former)
    assert module is importlib.import_module(MOVED[former])


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("visavis.deploy.gallery.Gallery", "visavis.deploy.gallery.sqlite"),
        ("visavis.evaluate.report.Report", "visavis.evaluate.report.report"),
        ("visavis.data.sources.open_source", "visavis.data.sources.registry"),
        ("visavis.data.validate.validate", "visavis.data.validate.validation"),
        ("visavis.vision.detection.load_detector", "visavis.vision.detection.detectors"),
        ("visavis.evaluate.protocols.PROTOCOLS", "visavis.evaluate.protocols.registry"),
        ("visavis.export.formats.FORMATS", "visavis.export.formats.registry"),
        ("visavis.train.finetune.FineTuning", "visavis.train.finetune.finetuning"),
    ],
)
@pytest.mark.filterwarnings("ignore:visavis:DeprecationWarning")
def test_a_room_still_gives_what_the_module_of_its_name_gave(former, now):
    room, _, name = former.rpartition(".")
    assert getattr(importlib.import_module(room), name) is getattr(importlib.import_module(now), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        importlib.import_module(room).nothing  # noqa: B018


def test_importing_visavis_imports_neither_torch_nor_cv2():
    code = "import sys, visavis; assert not {'torch', 'cv2', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_that_meant_two_things_are_found_by_their_former_one():
    evaluate = importlib.import_module("visavis.evaluate")
    with pytest.warns(DeprecationWarning, match=r"visavis\.evaluate\.Verification is now VerificationMetrics"):
        assert evaluate.Verification is evaluate.VerificationMetrics


def test_former_names_of_classes_and_arguments_work_with_a_warning():
    records = importlib.import_module("visavis.deploy.gallery.records")
    with pytest.warns(
        DeprecationWarning, match=r"records\.Enrolment is now visavis\.deploy\.gallery\.records\.Enrollment"
    ):
        assert records.Enrolment is records.Enrollment
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        records.nothing  # noqa: B018
    patches = importlib.import_module("visavis.data.patches")
    with pytest.warns(DeprecationWarning, match=r"argument grey of deepid_patches\(\) is now gray"):
        assert patches.deepid_patches(grey=True) == patches.deepid_patches(gray=True)
    with pytest.raises(TypeError, match="grey and gray are one argument"):
        patches.deepid_patches(grey=True, gray=True)


@pytest.mark.parametrize(
    "name",
    ["visavis", "visavis.losses", "visavis.evaluate", "visavis.evaluate.report", "visavis.deploy.gallery",
     "visavis.deploy.enrollment", "visavis.train.finetune"],
)  # fmt: skip
def test_a_name_that_a_room_has_not_is_an_error_and_not_none(name):
    module = importlib.import_module(name)
    with pytest.raises(AttributeError, match="Recogniser"):
        module.Recogniser  # noqa: B018
    assert not hasattr(module, "nothing")


def test_former_names_of_methods_and_properties_work_with_a_warning(tmp_path):
    import numpy as np

    from visavis.deploy.face import Face
    from visavis.deploy.gallery.encryption import AesGcm
    from visavis.deploy.gallery.model_identity import ModelIdentity
    from visavis.deploy.gallery.sqlite import Gallery
    from visavis.deploy.quality import assess
    from visavis.evaluate.protocols.base import EvaluationProtocol, ProtocolResult

    crop = np.zeros((112, 112, 3), np.uint8)
    face = Face(np.zeros(4), 1.0, np.zeros((5, 2)), crop, assess(crop, None), faces_in_image=3)
    with pytest.warns(DeprecationWarning, match=r"Face\.of is now faces_in_image"):
        assert face.of == 3

    with pytest.warns(DeprecationWarning, match=r"Own\.judge is now compute_metrics"):

        class Own(EvaluationProtocol):
            def score(self, embedded, settings):
                return {}

            def judge(self, scores, settings):
                return ProtocolResult({"figure": 1})

    assert Own().compute_metrics({}, None).results == {"figure": 1}

    with pytest.warns(DeprecationWarning, match=r"argument seal of Gallery.__init__\(\) is now cipher"):
        Gallery(tmp_path / "g.db", ModelIdentity("m", 4, "0" * 64), create=True, seal=AesGcm(b"k" * 32)).close()


def test_a_room_does_not_lend_what_python_asks_of_every_module(monkeypatch):
    room, module = importlib.import_module("visavis.evaluate.report"), "visavis.evaluate.report.report"
    monkeypatch.setattr(importlib.import_module(module), "__odd__", 1, raising=False)
    assert not hasattr(room, "__odd__")
