"""A similarity matches at the threshold and not one unit in the last place of double precision below it.

Scores are float32. Compared with a Python float NumPy would round that to float32 too, and a threshold that lies just
above a score would let it pass.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from visavis.cli import main
from visavis.data.validate.label_errors import matching_centers
from visavis.deploy.enrollment import _compare_with_own
from visavis.deploy.gallery.index import unit_vectors
from visavis.deploy.gallery.maintenance import duplicates, measure_fpir
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.gallery.templates import similarity_to_rest
from visavis.deploy.gallery.unknowns import keep_unknowns, known_unknowns, read_unknowns
from visavis.metrics.groups import group_rates
from visavis.metrics.identification import IdentificationMetrics, search
from visavis.metrics.similarity import matches, unit_rows
from visavis.metrics.verification import verify_scores

MODEL = ModelIdentity("fake", 16, "a" * 64)
ROWS = unit_rows(np.random.default_rng(4).normal(size=(40, 16)).astype(np.float32) + 1)


def around(similarity):
    """(threshold, whether the similarity reaches it): at it and one unit to either side."""
    s = float(similarity)
    assert np.float32(s) == s  # so that only double precision tells its neighbors apart
    return (np.nextafter(s, -2), True), (s, True), (np.nextafter(s, 2), False)


@pytest.fixture
def gallery(tmp_path):
    with Gallery(tmp_path / "people.db", MODEL, create=True) as made:
        for i, row in enumerate(ROWS[:8]):
            made.enroll(f"p{i}", [row])
        yield made


@pytest.mark.parametrize("seed", range(20))
def test_one_score_one_threshold(seed):
    s = np.random.default_rng(seed).normal(size=5).astype(np.float32) * 0.3
    for threshold, reached in around(s[2]):
        assert matches(s, float(threshold))[2] == matches(s[2], float(threshold)) == reached
    assert not matches(np.float32("nan"), -1.0)


def test_verify(color_model, tmp_path, capsys):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for path in paths:
        cv2.imwrite(path, rng.integers(90, 250, (112, 112, 3), dtype=np.uint8) // np.array([1, 2, 3], np.uint8))
    command = ["verify", str(color_model), *paths, "--aligned", "--json", "--exit-code"]
    main(command)
    similarity = json.loads(capsys.readouterr().out)["similarity"]
    for threshold, reached in around(similarity):
        assert main([*command, "--threshold", repr(float(threshold))]) == (0 if reached else 1)
        answer = json.loads(capsys.readouterr().out)
        assert (answer["match"], answer["threshold"]) == (reached, threshold)


def test_identify(gallery):
    found = gallery.identify(ROWS[20:21], threshold=None)[0].candidates[0]
    for threshold, reached in around(found.similarity):
        answer = gallery.identify(ROWS[20:21], threshold=float(threshold))[0]
        assert (answer.match is not None) == reached
        assert answer.decided


def test_unknown_faces_that_come_again_and_those_erased_with_a_subject(gallery):
    (number,) = keep_unknowns(gallery, [ROWS[30]])
    probe = ROWS[31]
    similarity = known_unknowns(gallery, [probe], -1.0)[0][1]
    for threshold, reached in around(similarity):
        assert known_unknowns(gallery, [probe], float(threshold))[0] == ((number, similarity) if reached else None)
    similarity = (unit_vectors(read_unknowns(gallery)[1], 16) @ gallery.sample_vectors("p0")[1].T)[0, 0]
    above, at = around(similarity)[2][0], around(similarity)[1][0]
    gallery.forget("p0", threshold=float(above))
    assert read_unknowns(gallery)[0]
    gallery.enroll("p0", [ROWS[0]])
    gallery.forget("p0", threshold=float(at))
    assert not read_unknowns(gallery)[0]


def test_subjects_that_are_one_and_the_rate_of_strangers(gallery):
    best = duplicates(gallery, -1.0)[0].second.similarity
    for threshold, reached in around(best):
        assert bool(duplicates(gallery, float(threshold))) == reached
        assert bool(measure_fpir(gallery, float(threshold)).matched) == reached


def test_a_face_unlike_its_subject_is_doubted(gallery):
    def doubts(threshold):
        face = SimpleNamespace(embedding=ROWS[20], quality=SimpleNamespace(score=1.0))
        found = SimpleNamespace(faces=[face], names=["a.jpg"], doubts=[], refused=[])
        _compare_with_own(gallery, "p0", found, threshold, strict=False)
        return found.doubts

    _, own, weights = gallery.sample_vectors("p0")
    similarity = similarity_to_rest(np.concatenate([own, ROWS[20:21]]), np.append(weights, 1.0))[-1]
    for threshold, reached in around(similarity):
        assert bool(doubts(float(threshold))) != reached


def scores_and_truth():
    return (ROWS[:20] * ROWS[20:]).sum(1).astype(np.float32), np.arange(20) % 2 == 0


def test_error_rates_of_pairs_groups_and_searches():
    scores, genuine = scores_and_truth()
    groups = (np.zeros(20, int), np.zeros(20, int))
    curve = verify_scores(scores, genuine).curve
    for threshold, reached in around(scores[1]):  # an impostor
        expected = int((scores[~genuine].astype(np.float64) >= threshold).sum())
        assert expected == int((scores[~genuine] > scores[1]).sum()) + reached
        assert curve.at(float(threshold)).false_matches == expected
        (found,) = group_rates(scores, genuine, groups, ["all"], threshold=float(threshold))
        assert round(found.fmr * 10) == expected
    single = search(ROWS[20:30], np.arange(10, 20), ROWS[:10], np.arange(10))
    metrics = IdentificationMetrics(single)
    for threshold, reached in around(single.other[3]):
        assert metrics.fpir(float(threshold)) == (np.sum(single.other > single.other[3]) + reached) / 10


def test_templates_drawn_again_decide_as_the_curve_does():
    """At a threshold between two neighboring float32 scores, where the weaker is an impostor."""
    from visavis.evaluate.protocols.base import EvaluationSettings
    from visavis.evaluate.protocols.template_verification import _genuine_bootstrap

    low = np.float32(0.5)
    genuine = np.array([True] * 4)
    scores = {"genuine_subject": np.array([0, 1, 2, 3]), "similarity": np.full(4, low), "genuine": genuine}
    point = SimpleNamespace(threshold=float(np.nextafter(float(low), 2)))
    drawn = _genuine_bootstrap(scores, {"1e-3": point}, EvaluationSettings(bootstrap=20))
    assert drawn["tmr_at_fmr_interval"]["1e-3"] == [0.0, 0.0]


def test_people_who_are_one_by_their_embeddings():
    similarity = (ROWS[:1] @ ROWS[1:2].T)[0, 0]
    for threshold, reached in around(similarity):
        assert bool(matching_centers(ROWS[:1], ROWS[1:2], float(threshold))) == reached


def test_the_edge_folder_decides_alike(tmp_path):
    """postprocess.py runs where visavis is not installed."""
    import visavis.export.edge.postprocess as edge

    (tmp_path / "features").mkdir()
    (tmp_path / "tensors").mkdir()
    for i in range(2):
        ROWS[i].tofile(tmp_path / "features" / f"{i}.bin")
    (tmp_path / "tensors" / "list.txt").write_text("0.bin\t0.jpg\n1.bin\t1.jpg\n")
    (tmp_path / "pairs.txt").write_text("0.jpg\t1.jpg\t1\n0.jpg\t1.jpg\t0\n")
    x = ROWS[:2] / np.maximum(np.linalg.norm(ROWS[:2], axis=1, keepdims=True), np.float32(1e-12))
    similarity = np.einsum("nd,nd->n", x[:1], x[1:])[0]
    for threshold, reached in around(similarity):
        done = subprocess.run(
            [sys.executable, edge.__file__, tmp_path / "tensors", tmp_path / "features", "--pairs",
             tmp_path / "pairs.txt", "--threshold", repr(float(threshold))],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["fmr"] == float(reached)
