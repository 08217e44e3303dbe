"""Face detectors, which face of a picture is meant."""

from visavis._moved import former_names

__getattr__ = former_names(__name__, "visavis.vision.detection.detectors")
