"""What computers leave beside people's pictures: named, so that no walker takes it for an identity or a picture."""

from __future__ import annotations

# Lower case. What macOS, Windows, Synology, QNAP, Linux and Jupyter write without being asked.
_NAMES = {
    "__macosx": "macOS",
    "thumbs.db": "Windows",
    "desktop.ini": "Windows",
    "$recycle.bin": "Windows",
    "system volume information": "Windows",
    "@eadir": "a Synology",
    "#recycle": "a Synology",
    "@recycle": "a QNAP",
    "lost+found": "the file system",
    "__pycache__": "Python",
}


def left_by_a_system(name: str) -> str | None:
    """Why a file or folder of that name is nobody's picture; None where it may be one.

    Names that begin with a dot are hidden everywhere but on Windows: `.ipynb_checkpoints`, `.DS_Store`, `._x.jpg`.
    """
    if name.startswith("."):
        return "hidden"
    system = _NAMES.get(name.lower())
    return f"written by {system}" if system else None
