"""Face detectors, which face of a picture is meant."""
