"""Closed-set identification: ranks against a plain loop, and what a user may get wrong."""

from pathlib import Path

import numpy as np
import pytest

from visavis.errors import DataError, ProtocolError
from visavis.evaluate.embedding import Embeddings
from visavis.evaluate.protocols.base import EvaluationSettings
from visavis.evaluate.protocols.closed_set import ClosedSet, load_closed_set
from visavis.evaluate.protocols.loading import ProtocolArgs
from visavis.evaluate.runner import evaluate
from visavis.vision import images

PEOPLE, ENROLLED, PROBES = 12, 3, 4


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def protocol() -> ClosedSet:
    label = np.concatenate([np.repeat(np.arange(PEOPLE), ENROLLED), np.repeat(np.arange(PEOPLE), PROBES)])
    count = PEOPLE * ENROLLED
    names = tuple(f"{i}" for i in range(len(label)))
    people = tuple(f"p{k}" for k in range(PEOPLE))
    return ClosedSet(names, label, np.arange(count), np.arange(count, len(label)), people)


@pytest.fixture
def vectors(protocol: ClosedSet) -> np.ndarray:
    rng = np.random.default_rng(0)
    person = rng.standard_normal((PEOPLE, 6))
    return _unit(person[protocol.label] + 0.9 * rng.standard_normal((len(protocol.label), 6)))


def test_ranks_are_those_of_a_plain_loop(protocol: ClosedSet, vectors: np.ndarray) -> None:
    scores = protocol.score(Embeddings(protocol.images, vectors), EvaluationSettings())
    for row, probe in enumerate(protocol.probes):
        similarity = []
        for k in range(PEOPLE):
            center = vectors[protocol.enrolled][protocol.label[protocol.enrolled] == k].sum(0)
            similarity.append(float(vectors[probe] @ center / np.linalg.norm(center)))
        true = int(protocol.label[probe])
        assert scores["rank"][row] == 1 + sum(s > similarity[true] for s in similarity)
        assert scores["first"][row] == int(np.argmax(similarity))
        assert scores["similarity"][row] == pytest.approx(similarity[true], abs=1e-5)
    assert 0.2 < (scores["rank"] == 1).mean() < 1  # neither trivial nor hopeless


def test_figures_follow_from_the_ranks(protocol: ClosedSet) -> None:
    ranks = np.array([1, 1, 2, 6, *[1] * (PEOPLE * PROBES - 4)])
    label = protocol.label[protocol.probes]
    blank = np.full(len(ranks), 0.5, np.float32)
    scores = {"rank": ranks, "first": label, "label": label, "similarity": blank, "similarity_first": blank,
              "probe": protocol.probes}  # fmt: skip
    found = protocol.compute_metrics(scores, EvaluationSettings(bootstrap=200)).results
    assert found["rank_1"] == found["accuracy"]["mean"] == pytest.approx(46 / 48)
    assert found["top"] == {"1": pytest.approx(46 / 48), "5": pytest.approx(47 / 48), "10": 1.0}
    low, high = found["accuracy"]["interval"]
    assert low < 46 / 48 < high
    people = found["accuracy"]["interval_people"]  # all errors are of one person, who is not always drawn
    assert people[0] < 46 / 48
    assert people[1] == 1.0


def test_a_model_that_cannot_tell_people_apart_scores_nothing(protocol: ClosedSet) -> None:
    same = np.tile(_unit(np.ones((1, 6))), (len(protocol.label), 1))
    scores = protocol.score(Embeddings(protocol.images, same), EvaluationSettings())
    assert (scores["rank"] == PEOPLE).all()
    assert protocol.compute_metrics(scores, EvaluationSettings()).results["rank_1"] == 0


def test_pictures_not_acquired_count_as_wrong(protocol: ClosedSet, vectors: np.ndarray) -> None:
    whole = protocol.score(Embeddings(protocol.images, vectors), EvaluationSettings())
    vectors = vectors.copy()
    vectors[protocol.probes[0]] = np.nan
    vectors[:ENROLLED] = np.nan  # nobody knows the first person
    scores = protocol.score(Embeddings(protocol.images, vectors), EvaluationSettings())
    found = protocol.compute_metrics(scores, EvaluationSettings()).results
    assert found["comparisons"]["failed_to_acquire"] >= 1
    assert scores["rank"][0] == 0
    later = slice(PROBES, None)
    assert (scores["rank"][later] <= whole["rank"][later]).all()
    assert (scores["first"][later] != 0).all()


class _Color:
    dim = 3

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return _unit(crops.reshape(len(crops), -1, 3).mean(1) - 100.0)


def _write(root: Path, enrolled: int = 2) -> None:
    rng = np.random.default_rng(1)
    rows: dict[str, list[str]] = {"train.txt": [], "valid.txt": []}
    for label, person in enumerate(("Ann Lee", "Bo", "Cy")):
        color = rng.integers(0, 255, 3)
        (root / "images" / person).mkdir(parents=True)
        for k in range(enrolled + 1):
            image = np.clip(color + rng.integers(-9, 9, (20, 20, 3)), 0, 255).astype(np.uint8)
            images.write(root / "images" / person / f"{k}.png", image)
            rows["train.txt" if k < enrolled else "valid.txt"].append(f"{person}/{k}.png\t{label}")
    for name, lines in rows.items():
        (root / name).write_text("\n".join(lines) + "\n")


def test_it_runs_on_two_lists(tmp_path: Path) -> None:
    _write(tmp_path)
    task = load_closed_set(ProtocolArgs(tmp_path))
    report = evaluate(_Color(), task.protocol, task.images, settings=EvaluationSettings(bootstrap=50), baseline=True)
    assert report.results["rank_1"] == 1.0
    assert "among 3 people" in str(report)
    about = report.context["data"]
    assert (about["people"], about["enrolled"], about["probes"]) == (3, 6, 3)
    assert "cmc" in report.to_html().lower()


def test_it_is_a_protocol_by_name(tmp_path: Path) -> None:
    from visavis.evaluate.protocols.registry import load_protocol

    _write(tmp_path)
    assert load_protocol("closed-set", tmp_path).protocol.name == "closed-set"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("valid.txt", "Ann Lee/0.png\t0\n", "among the enrolled"),
        ("valid.txt", "Ann Lee/2.png\t7\n", "not enrolled"),
        ("train.txt", "Ann Lee/0.png\t0\nAnn Lee/1.png\t0\n", "not enrolled"),
        ("train.txt", "nonsense\n", "expected"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    _write(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises((ProtocolError, DataError), match=said):
        load_closed_set(ProtocolArgs(tmp_path))


def test_a_missing_list_says_what_writes_it(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "valid.txt").unlink()
    with pytest.raises(ProtocolError, match="visavis prepare --youtube-faces"):
        load_closed_set(ProtocolArgs(tmp_path))
