"""Which model a gallery belongs to."""

import pytest

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.errors import ModelFormatError
from visavis.models.card import ModelCard
from visavis.vision.preprocessing import PreprocessSpec


def test_the_identity_depends_on_weights_and_preprocessing():
    card = ModelCard("m", "fake", 8, PreprocessSpec(), weights_digest="1" * 64)
    same = ModelIdentity.of_card(card.with_changes(name="m", thresholds={"1e-3": {"threshold": 0.3}}))
    assert ModelIdentity.of_card(card) == same
    assert ModelIdentity.of_card(card.with_changes(weights_digest="2" * 64)).digest != same.digest
    bgr = card.with_changes(preprocess=PreprocessSpec(channels="BGR"))
    assert ModelIdentity.of_card(bgr).digest != same.digest
    with pytest.raises(ModelFormatError, match="weights_digest"):
        ModelIdentity.of_card(card.with_changes(weights_digest=""))
