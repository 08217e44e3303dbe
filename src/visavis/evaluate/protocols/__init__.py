"""Protocols: what is compared, and how it is judged."""

from visavis._moved import former_names

__getattr__ = former_names(__name__, "visavis.evaluate.protocols.registry")
