"""One file a format."""

from visavis._moved import former_names

__getattr__ = former_names(__name__, "visavis.export.formats.registry")
