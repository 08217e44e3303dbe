"""Accelerators are used where they start, named where they do not, and doctor says what to type."""

import logging
from types import SimpleNamespace

import pytest

from visavis import runtimes
from visavis.models import providers
from visavis.models.onnx import OnnxEmbedder

CUDA, COREML, DML, CPU = (
    "CUDAExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "CPUExecutionProvider",
)


@pytest.fixture
def machine(monkeypatch):
    """An onnxruntime built with some providers, of which some start; notes what each session was asked to run on."""
    real = runtimes.import_runtime("onnxruntime")
    asked = []

    def build(available, *, broken=(), absent=()):
        def session(model, sess_options, providers, **options):
            asked.append((providers[0], sess_options.enable_mem_pattern))
            if providers[0] in broken:
                raise RuntimeError("libcublas.so.12: cannot open shared object file")
            made = real.InferenceSession(model, sess_options=sess_options, providers=[CPU], **options)
            got = [name for name in providers if name not in absent]
            return SimpleNamespace(
                get_providers=lambda: got, run=made.run, get_inputs=made.get_inputs,
                get_outputs=made.get_outputs, get_modelmeta=made.get_modelmeta,
            )  # fmt: skip

        fake = SimpleNamespace(
            SessionOptions=real.SessionOptions,
            InferenceSession=session,
            get_available_providers=lambda: [*available, CPU],
        )
        for module in (runtimes, providers):
            monkeypatch.setattr(module, "import_runtime", lambda name: fake)
        return asked

    return build


@pytest.mark.parametrize(
    ("available", "first"),
    [
        ([], CPU),
        (["AzureExecutionProvider"], CPU),
        (["TensorrtExecutionProvider", CUDA], CUDA),
        (["TensorrtExecutionProvider"], "TensorrtExecutionProvider"),
        ([COREML], COREML),
        (["OpenVINOExecutionProvider"], "OpenVINOExecutionProvider"),
        ([DML], DML),
    ],
)
def test_the_best_accelerator_there_is_is_used(machine, color_model, available, first):
    asked = machine(available)
    OnnxEmbedder(color_model)
    assert [name for name, _ in asked] == [first]


def test_directml_gets_the_memory_layout_it_needs(machine, color_model):
    asked = machine([DML])
    OnnxEmbedder(color_model)
    assert asked == [(DML, False)]


def test_one_that_does_not_start_gives_way_and_is_named(machine, color_model, caplog):
    asked = machine([CUDA, COREML], broken=[CUDA], absent=[COREML])
    with caplog.at_level(logging.WARNING):
        OnnxEmbedder(color_model)
    assert [name for name, _ in asked] == [CUDA, COREML, CPU]
    assert "CUDA does not start: libcublas.so.12" in caplog.text
    assert "CoreML is in this onnxruntime, but its libraries or its device are not there" in caplog.text


@pytest.mark.parametrize(
    ("packages", "found", "nvidia", "system", "said"),
    [
        (["onnxruntime"], [CPU], False, "linux", None),
        (["onnxruntime"], [CPU], True, "linux", "pip install onnxruntime-gpu"),
        (["onnxruntime-gpu"], [CUDA, CPU], True, "linux", None),
        (["onnxruntime"], [CPU], False, "win32", "pip install onnxruntime-directml"),
        (["onnxruntime-directml"], [DML, CPU], False, "win32", None),
        (
            ["onnxruntime", "onnxruntime-gpu"],
            [CUDA, CPU],
            True,
            "linux",
            "overwrite each other; keep one: pip uninstall",
        ),
    ],
)
def test_doctor_says_what_to_type(monkeypatch, packages, found, nvidia, system, said):
    monkeypatch.setattr(providers, "has_nvidia_driver", lambda: nvidia)
    monkeypatch.setattr(providers, "sys", SimpleNamespace(platform=system))
    advice = providers.advice(dict.fromkeys(packages, "1.31.1"), found)
    assert said in advice if said else advice is None
