"""Generated faces: deterministic, license-free, any number of people."""

from __future__ import annotations

from visavis.synthetic.identity import FACTORS, Identity, sample_identity
from visavis.synthetic.parallel import generate, pairs, people, picture_name
from visavis.synthetic.render import face

__all__ = ["FACTORS", "Identity", "face", "generate", "pairs", "people", "picture_name", "sample_identity"]
