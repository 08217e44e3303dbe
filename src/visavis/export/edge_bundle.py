"""The edge folder: an exported .onnx with preprocess, runner, postprocess and a C++ example, free of visavis."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from visavis.errors import DataError, ModelFormatError
from visavis.models.graph import CARD_KEY, IDENTITIES_KEY, INPUT_KEY
from visavis.models.onnx import open_session
from visavis.vision.preprocessing import PreprocessSpec

_FILES = ("preprocess.py", "run.py", "postprocess.py", "README.md", "cpp/CMakeLists.txt", "cpp/verify.cpp")


def write_bundle(folder: str | os.PathLike[str], model: str | os.PathLike[str]) -> Path:
    """Write an edge folder around an exported .onnx file.

    Args:
        folder: new or empty, or an older edge folder.
        model: from `visavis export --format onnx`, of any precision.

    Raises:
        ModelFormatError: not such a file.
        DataError: the folder holds other things, or cannot be written.
    """
    home, source = Path(folder), Path(model)
    if source.suffix != ".onnx":
        raise ModelFormatError(f"--bundle wants an .onnx export, got {source.name}; use --format onnx")
    metadata = open_session(source).get_modelmeta().custom_metadata_map
    if CARD_KEY not in metadata:
        raise ModelFormatError(f"{source}: carries no model card; export it with visavis export --format onnx")
    values = {**json.loads(metadata[CARD_KEY]), "input": metadata.get(INPUT_KEY, "normalized")}
    if IDENTITIES_KEY in metadata:
        values["identities"] = json.loads(metadata[IDENTITIES_KEY])  # the columns of the output "logits"
    frame = PreprocessSpec.from_dict(values["preprocess"]).frame
    values["frame"] = {"size": frame.size, "column": frame.column}  # of a 112 × 112 ArcFace crop; null: of none
    if home.exists() and any(home.iterdir()) and not (home / "model.json").is_file():
        raise DataError(f"{home}: expected a new or empty folder for the edge bundle, got one with other files")
    try:
        (home / "cpp").mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            shutil.copyfile(Path(__file__).parent / "edge" / name, home / name)
        shutil.copyfile(source, home / "model.onnx")
        (home / "model.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{home}: cannot write the edge folder ({error.strerror})") from error
    return home
