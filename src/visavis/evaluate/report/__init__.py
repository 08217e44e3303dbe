"""What an evaluation shows: tables, plots, a page."""

from visavis._moved import former_names

__getattr__ = former_names(__name__, "visavis.evaluate.report.report")
