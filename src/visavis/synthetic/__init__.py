"""Generated faces: deterministic, license-free, any number of people."""

from __future__ import annotations

from visavis._moved import renamed
from visavis.synthetic.identity import FACTORS, Identity, sample_identity
from visavis.synthetic.parallel import generate, image_name, pairs, people
from visavis.synthetic.render import face

__all__ = ["FACTORS", "Identity", "face", "generate", "image_name", "pairs", "people", "sample_identity"]
__getattr__ = renamed(__name__, {"picture_name": "image_name"})
