"""What to do when no face was found, the likeliest first."""

from __future__ import annotations

# In the order of what is behind it, among the pictures people ask about: crops taken for photographs; faces below the
# smallest looked for; heads upside down or lying where --turn is off; channels in OpenCV's order; and no face at all.
WHAT_HELPS = (
    "an aligned crop already? --aligned, aligned=True; a small face? --min-face 20; turned? --turn always; an array of "
    "OpenCV? its channels are BGR: image[..., ::-1]; another detector may find it: --detector yunet"
)
