"""Where every runtime that wants to talk to its maker is imported: silenced before its first import, named if missing.

Nothing else in the package imports these modules; a test reads the sources to make sure.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visavis.errors import MissingPackageError
from visavis.machine import cache_home, usable_cores

# module: the extra that brings it, "" the default install
EXTRAS = {
    "onnxruntime": "",
    "matplotlib": "report",
    "jinja2": "report",
    "torch": "train",
    "jsonargparse": "train",
    "yaml": "train",
    "safetensors": "train",
    "onnx": "train",
    "onnxscript": "train",
    "openvino": "openvino",
    "nncf": "openvino",
    "mindspore": "mindspore",
    "fastapi": "serve",
    "starlette": "serve",
    "pydantic": "serve",
    "python_multipart": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "httpx": "serve",
    "cryptography": "serve",
    "faiss": "gallery",
    "huggingface_hub": "hub",
    "shtab": "completion",
    "psycopg": "postgres",
    "pi_heif": "heif",
}
REPORT = ("matplotlib", "jinja2")  # what a page needs
_LOG_LEVELS = {"nncf": logging.ERROR, "faiss": logging.WARNING}  # they tell of what they try


def import_runtime(module: str) -> Any:
    """Import a runtime, or a part of one such as `onnxruntime.quantization`, with every maker's telemetry off.

    Raises:
        MissingPackageError: not installed; says what to type.
    """
    silence()
    package = module.partition(".")[0]
    if package in _LOG_LEVELS:
        logging.getLogger(package).setLevel(_LOG_LEVELS[package])
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingPackageError(f"{package} is not installed; {what_to_type(package)}") from error
    if module == "onnxruntime" and sys.platform == "win32":
        loaded.disable_telemetry_events()  # Windows' own event log knows no environment variable
    return loaded


def require(*packages: str) -> None:
    """Refuse before long work what would end for want of a package.

    Raises:
        MissingPackageError: one is not installed; says what to type.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"{package} is not installed; {what_to_type(package)}")


def what_to_type(package: str) -> str:
    """The command that brings a package of `EXTRAS`."""
    extra = EXTRAS.get(package, "")
    return f"pip install 'visavis[{extra}]'" if extra else "pip install visavis"


def silence() -> None:
    """Keep runtimes from reporting to their makers and from writing into the home folder; child processes inherit it.

    ONNX Runtime (from 1.29) reads its variable once, when it is first imported: later is too late. OpenVINO and NNCF
    ask nobody, and their own opt-out writes a file into the home folder; without the module `openvino_telemetry` both
    fall back to doing nothing. Matplotlib keeps its list of fonts among our caches.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own way to say: not installed
    os.environ.setdefault("MPLCONFIGDIR", str(cache_home() / "matplotlib"))


def onnx_session(
    model: str | os.PathLike[str] | bytes,
    *,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    arena: bool = True,
) -> Any:
    """An `onnxruntime.InferenceSession` that prints nothing. What it raises shares no base class but Exception.

    Args:
        model: a file or its content.
        threads: intra-op threads; all usable cores when None (its own choice knows no quota).
        providers: execution providers, best first; the CPU's when None.
        arena: keep freed memory for the next run; not for inputs of every size, the largest of which would stay.
    """
    onnxruntime = import_runtime("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = usable_cores() if threads is None else int(threads)
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = arena and "DmlExecutionProvider" not in (providers or ())  # DirectML takes none
    given = model if isinstance(model, bytes) else os.fspath(Path(model))
    wanted = list(providers or ["CPUExecutionProvider"])
    # A second attempt on failure would only print to the user's screen.
    return onnxruntime.InferenceSession(given, sess_options=options, providers=wanted, enable_fallback=0)
