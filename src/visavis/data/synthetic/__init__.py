"""Generated faces: deterministic, licence-free, any number of people."""

from __future__ import annotations

from visavis.data.synthetic.identity import FACTORS, Identity, sample_identity
from visavis.data.synthetic.many import generate, pairs, people, picture_name
from visavis.data.synthetic.render import face

__all__ = ["FACTORS", "Identity", "face", "generate", "pairs", "people", "picture_name", "sample_identity"]
