"""What a dry run trains on where the data is there, where some of it would be drawn, and where it is absent."""

import numpy as np
import pytest

from visavis.train.batch import plan_batch
from visavis.train.recipe import parse_recipe
from visavis.train.time_limit import TimeLimit
from visavis.train.trial_data import Noise, Part, open_trial_data
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec(size=(112, 112))


def opened(data, *, batch_size=8, seconds=60.0):
    wanted = parse_recipe({"data": data, "loop": {"batch_size": batch_size, "steps": 1}})
    told = []
    found = open_trial_data(
        wanted, SPEC, plan_batch(wanted, 1), limit=TimeLimit(seconds), progress=lambda *words: told.append(words)
    )
    return found, told


def test_the_pictures_that_are_there_are_all_decoded_and_counted(blob_folder):
    found, told = opened({"source": str(blob_folder)})
    assert (found.extent.identities, found.extent.images, found.per_epoch, found.remarks) == (8, 48, 6, ())
    assert told[-1] == ("decoding the pictures", 48, 48)


def test_where_time_is_short_some_are_decoded_and_it_is_said(blob_folder, monkeypatch):
    monkeypatch.setattr("visavis.train.trial_data._AT_ONCE", 20)
    found, _ = opened({"source": str(blob_folder)}, seconds=0)
    assert found.remarks == ("20 of 48 pictures were decoded; the others: visavis validate SRC",)


def test_generated_faces_are_not_drawn(monkeypatch):
    monkeypatch.setattr("visavis.synthetic.generate", lambda *a, **k: pytest.fail("faces were drawn"))
    found, _ = opened({"synthetic": {"identities": 500, "images_per_identity": 16}})
    assert (found.extent.identities, found.extent.images, found.extent.known_from) == (500, 8000, "generated")
    assert found.images.take(np.array([0, 7999])).shape == (2, 112, 112, 3)


def test_the_absent_are_as_many_as_the_recipe_says():
    said = {"source": "nowhere", "expected_identities": 10_000, "expected_images": 123_456}
    found, _ = opened(said)
    assert (found.extent.identities, found.extent.images) == (10_000, 123_456)
    assert found.per_epoch == 123_456 // 8
    by_person, _ = opened({**said, "sampler": "pxk", "images_per_class": 4})
    assert by_person.per_epoch == -(-10_000 // 2)


def test_noise_has_the_classes_and_pictures_asked_for():
    noise = Noise(10, (4, 6), classes=3, each=2, seed=0)
    assert noise.labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]
    assert noise.take(np.array([0, 9, 0])).shape == (3, 4, 6, 3)


def test_a_part_keeps_what_it_decoded_and_labels_below_its_classes():
    noise = Noise(40, (4, 4), classes=20, each=2, seed=0)
    part = Part(noise, np.array([3, 10, 11, 30]), classes=2, keep=True)
    assert part.labels.tolist() == [0, 1, 1, 0]
    images = part.take(np.array([2, 0, 2]))
    assert np.array_equal(images, noise.take(np.array([11, 3, 11])))
    noise.take = lambda indices: pytest.fail("decoded again")
    assert np.array_equal(part.take(np.array([0, 2])), images[[1, 0]])
