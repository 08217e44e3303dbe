"""What must be said with every answer of a model that was never trained on photographs."""

from __future__ import annotations

from visavis.models.card import ModelCard

TRAINED_ON, DRAWINGS = "trained_on_what", "drawings"  # a note of the card
_SAID = (
    "trained on drawings (generated faces) alone, to try things with: of pairs of real faces the quickstart's model "
    "decides about 68 % rightly."
)


def is_of_drawings(card: ModelCard | None) -> bool:
    """Whether a card says that the model has seen generated faces only."""
    return card is not None and card.notes.get(TRAINED_ON) == DRAWINGS


def caution(card: ModelCard | None) -> str:
    """A sentence for whoever reads the model's answers; empty where there is nothing to warn of."""
    return f"This model was {_SAID}" if is_of_drawings(card) else ""
