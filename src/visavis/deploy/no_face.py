"""What to do when no face was found, the likeliest first."""

from __future__ import annotations

# Crops taken for photographs come first; then faces below the smallest looked for, pictures on their side, and last
# OpenCV's order of channels, in which faces are found nearly as well (94 of 100 score lower, hardly one is lost).
WHAT_HELPS = (
    "an aligned crop already? --aligned, aligned=True; a small face in a large picture? --min-face 20; lying? --turn "
    "always; hidden or in profile? --detector yunet; an OpenCV array? its channels are BGR: image[..., ::-1]"
)
