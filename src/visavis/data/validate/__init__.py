"""Looking a picture set over: damage, duplicates, label errors."""

from visavis._moved import former_names

__getattr__ = former_names(__name__, "visavis.data.validate.validation")
