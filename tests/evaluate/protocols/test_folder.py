"""All pairs of a folder: against a plain loop, drawn where there are too many; and halves of it to identify."""

from itertools import combinations

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.closed_set import load_closed_set
from visavis.evaluate.protocols.folder import all_pairs, load_folder
from visavis.evaluate.protocols.loading import ProtocolArgs
from visavis.evaluate.runner import evaluate
from visavis.vision import images

LABELS = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4])
NAMES = tuple(f"p{label}/{i}.png" for i, label in enumerate(LABELS))


def vectors(labels, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((labels.max() + 1, 8))[labels] + 0.8 * rng.standard_normal((len(labels), 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_every_picture_is_compared_with_every_other_once():
    protocol = all_pairs(NAMES, LABELS)
    pairs = protocol.pairs
    drawn = {frozenset(ends): same for *ends, same in zip(pairs.reference, pairs.probe, pairs.genuine, strict=True)}
    assert drawn == {frozenset(ends): LABELS[ends[0]] == LABELS[ends[1]] for ends in combinations(range(11), 2)}
    assert len(pairs) == 55
    assert protocol.describe()["impostor_comparisons"] == 45
    assert protocol.describe()["subjects"] == 5


def test_figures_are_those_of_a_plain_loop_and_there_is_no_accuracy():
    protocol, rows = all_pairs(NAMES, LABELS), vectors(LABELS)
    settings = EvaluationSettings(bootstrap=100)
    found = protocol.compute_metrics(protocol.score(Embeddings(NAMES, rows), settings), settings).results
    genuine = [rows[a] @ rows[b] for a, b in combinations(range(11), 2) if LABELS[a] == LABELS[b]]
    impostor = [rows[a] @ rows[b] for a, b in combinations(range(11), 2) if LABELS[a] != LABELS[b]]
    above = np.array(genuine)[:, None] > np.array(impostor)
    assert found["auc"] == pytest.approx(above.mean())
    assert found["accuracy"] is None
    fourth = sorted(impostor)[-5]  # one in ten of 45 lets four match
    assert found["tmr_at_fmr"]["1e-1"] == pytest.approx(np.mean([g > fourth for g in genuine]))
    low, high = found["subject_bootstrap"]["tmr_at_fmr_interval"]["1e-1"]
    assert low < found["tmr_at_fmr"]["1e-1"] <= high
    assert found["subject_bootstrap"]["subjects"] == 5


def test_beyond_the_limit_impostors_are_drawn_and_genuine_pairs_kept(caplog):
    caplog.set_level("INFO")
    labels = np.repeat(np.arange(30), 3)
    names = [str(i) for i in range(90)]
    protocol = all_pairs(names, labels, most=500, seed=1)
    pairs = protocol.pairs
    assert (int(pairs.genuine.sum()), int((~pairs.genuine).sum())) == (90, 500)
    assert len({frozenset(ends) for ends in zip(pairs.reference, pairs.probe, strict=True)}) == 590
    assert np.array_equal(labels[pairs.reference] == labels[pairs.probe], pairs.genuine)
    assert "500 of 3915 impostor comparisons are drawn" in caplog.text
    again = all_pairs(names, labels, most=500, seed=1).pairs
    assert np.array_equal(again.reference, pairs.reference)
    assert not np.array_equal(all_pairs(names, labels, most=500, seed=2).pairs.reference, pairs.reference)
    assert len(all_pairs(names, labels, most=3915).pairs) == 90 + 3915
    settings = EvaluationSettings(bootstrap=0)
    table = protocol.compute_metrics(
        protocol.score(Embeddings(protocol.images, vectors(labels)), settings), settings
    ).tables[0]
    assert "12.77 % of the 3,915 impostor comparisons were drawn" in table.note


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0], []])
def test_one_person_or_no_two_pictures_of_anybody_are_refused(labels):
    with pytest.raises(ProtocolError, match="two people at least"):
        all_pairs([str(i) for i in range(len(labels))], np.array(labels, np.int64))


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for label, count in enumerate((3, 1, 2, 5)):
        for k in range(count):
            path = tmp_path / "people" / f"p{label}" / f"{k:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, np.full((16, 16, 3), 40 * label + rng.integers(0, 9), np.uint8))
    (tmp_path / "some.txt").write_text("p0\np3\n")
    return tmp_path


def test_a_folder_is_read_as_it_is_and_names_choose_people(people):
    task = load_folder(ProtocolArgs(people / "people"))
    assert len(task.protocol.images) == 11
    assert task.images("p3/04.png").shape == (16, 16, 3)
    some = load_folder(ProtocolArgs(people / "people", options={"identities": people / "some.txt"}))
    assert {name[:2] for name in some.protocol.images} == {"p0", "p3"}
    with pytest.raises(ProtocolError, match="--protocol pairs"):
        load_folder(ProtocolArgs(people / "people", pairs=people / "some.txt"))


def test_a_preset_of_folds_is_refused(people):
    task = load_folder(ProtocolArgs(people / "people"))

    class Blank:
        dim = 2

        def embed(self, crops):
            return np.full((len(crops), 2), 0.5**0.5, np.float32)

    with pytest.raises(ProtocolError, match="a folder has none"):
        evaluate(Blank(), task.protocol, task.images, settings=EvaluationSettings(preset="deepid"))


def test_closed_set_enrolls_the_first_half_of_each_persons_pictures(people, caplog):
    caplog.set_level("INFO")
    protocol = load_closed_set(ProtocolArgs(people / "people")).protocol
    enrolled = {protocol.images[i] for i in protocol.enrolled}
    assert enrolled == {"p0/00.png", "p0/01.png", "p2/00.png", "p3/00.png", "p3/01.png", "p3/02.png"}
    assert {protocol.images[i] for i in protocol.probes} == {"p0/02.png", "p2/01.png", "p3/03.png", "p3/04.png"}
    assert "1 of 4 people have one picture and are left out" in caplog.text
    (people / "people" / "train.txt").write_text("p0/00.png\tp0\n")
    with pytest.raises(ProtocolError, match=r"valid\.txt: closed-set wants"):
        load_closed_set(ProtocolArgs(people / "people"))


def test_closed_set_wants_two_people_with_two_pictures(people):
    listed = people / "few.txt"
    listed.write_text("p0\np1\n")
    with pytest.raises(ProtocolError, match="two people at least"):
        load_closed_set(ProtocolArgs(people / "people", options={"identities": listed}))
