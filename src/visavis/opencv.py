"""OpenCV, imported so that the environment stays as it was.

Its import puts a path with an empty entry into LD_LIBRARY_PATH, and every process started afterwards would look for its
libraries in the folder it is started in, which may be somebody else's.
"""

from __future__ import annotations

import os

_before = {name: os.environ.get(name) for name in ("LD_LIBRARY_PATH", "PATH")}

import cv2 as cv2  # noqa: E402

for _name, _value in _before.items():
    if _value is None:
        os.environ.pop(_name, None)
    else:
        os.environ[_name] = _value
