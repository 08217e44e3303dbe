"""Execution providers of ONNX Runtime: which accelerator is used, and what to type for the one this machine could use.

Several packages share the import name `onnxruntime`; whichever is installed serves.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from importlib import metadata
from typing import Any

from visavis.machine import has_nvidia_driver
from visavis.runtimes import import_runtime, onnx_session

log = logging.getLogger(__name__)

# In order of preference. TensorRT after CUDA: it builds an engine for minutes when a model is first loaded.
PROVIDERS = {
    "CUDAExecutionProvider": "CUDA",
    "TensorrtExecutionProvider": "TensorRT",
    "CoreMLExecutionProvider": "CoreML",
    "OpenVINOExecutionProvider": "OpenVINO",
    "DmlExecutionProvider": "DirectML",
}
CPU = "CPUExecutionProvider"
PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-silicon",
    "onnxruntime-openvino",
)


def accelerators() -> list[str]:
    """The providers of `PROVIDERS` that the installed package was built with, best first."""
    available = import_runtime("onnxruntime").get_available_providers()
    return [name for name in PROVIDERS if name in available]


def accelerated_session(path: str | os.PathLike[str], *, threads: int | None = None) -> Any:
    """A session on the best accelerator that starts, else on the CPU; says in the log which did not start and why.

    What the CPU's session raises shares no base class but Exception.
    """
    for name in accelerators():
        try:
            session = onnx_session(path, threads=threads, providers=[name, CPU])
        except Exception as error:
            log.warning("%s does not start: %s", PROVIDERS[name], " ".join(str(error).split())[:200])
            continue
        if name in session.get_providers():
            return session
        log.warning("%s is in this onnxruntime, but its libraries or its device are not there", PROVIDERS[name])
    return onnx_session(path, threads=threads)


def installed_packages() -> dict[str, str]:
    """The packages that bring `onnxruntime`, with their versions; more than one overwrite each other's files."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def advice(packages: dict[str, str], providers: list[str]) -> str | None:
    """What to type for the accelerator this machine could use, or None.

    Args:
        packages: as `installed_packages` gives them.
        providers: as ONNX Runtime names them.
    """
    if len(packages) > 1:
        keep = next((name for name in packages if name != "onnxruntime"), "onnxruntime")
        return (
            f"{' and '.join(packages)} overwrite each other; keep one: "
            f"pip uninstall -y {' '.join(packages)} && pip install {keep}"
        )
    if any(name in PROVIDERS for name in providers):
        return None
    if has_nvidia_driver():
        return "an NVIDIA GPU is here; to use it: pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
    if sys.platform == "win32":
        return "for a GPU by DirectML: pip uninstall -y onnxruntime && pip install onnxruntime-directml"
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "for CoreML: pip install --upgrade onnxruntime"
    return None
