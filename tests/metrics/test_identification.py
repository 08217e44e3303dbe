"""CMC, TPIR and FPIR against rankings made by sorting each probe's list."""

import numpy as np
import pytest

from visavis.errors import ProtocolError
from visavis.evaluate.protocols.template_identification import search_outcome
from visavis.metrics.identification import IdentificationMetrics, search


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def world(seed, subjects=30, enrolled=20, per=3, dim=8):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(subjects, dim))
    gallery_subject = np.repeat(np.arange(enrolled), 2)
    probe_subject = np.repeat(np.arange(subjects), per)
    gallery = unit(centers[gallery_subject] + rng.normal(size=(len(gallery_subject), dim)) * 0.9)
    probes = unit(centers[probe_subject] + rng.normal(size=(len(probe_subject), dim)) * 0.9)
    return probes, probe_subject, gallery, gallery_subject


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_search_equals_sorted_lists(seed, block):
    probes, probe_subject, gallery, gallery_subject = world(seed)
    found = search(probes, probe_subject, gallery, gallery_subject, block=block)
    for p in range(len(probes)):
        scores = [float(probes[p] @ g) for g in gallery]
        others = [s for s, g in zip(scores, gallery_subject, strict=True) if g != probe_subject[p]]
        own = [s for s, g in zip(scores, gallery_subject, strict=True) if g == probe_subject[p]]
        assert found.other[p] == pytest.approx(max(others), abs=1e-6)
        assert found.mated[p] == bool(own)
        if own:
            assert found.own[p] == pytest.approx(max(own), abs=1e-6)
            assert found.rank[p] == 1 + sum(s > max(own) for s in others)


def test_rates_equal_their_definitions():
    found = search(*world(1, subjects=60, enrolled=40))
    figures = IdentificationMetrics(found)
    mated, own, rank, best = found.mated, found.own, found.rank, found.other
    for r in (1, 3, 10):
        assert figures.hit_rate(r) == pytest.approx(np.mean([k <= r for k in rank[mated]]), abs=1e-12)
    np.testing.assert_allclose(figures.cmc(10), [figures.hit_rate(r) for r in range(1, 11)], atol=1e-12)
    for fpir in (0.2, 0.1, 0.02):
        best_tpir = 0.0
        for t in [*own[mated], *best[~mated]]:
            if np.mean(best[~mated] >= t) <= fpir:
                best_tpir = max(best_tpir, np.mean((own[mated] >= t) & (rank[mated] == 1)))
        threshold = figures.threshold_at_fpir(fpir)
        assert figures.fpir(threshold) <= fpir
        assert figures.tpir(threshold) == pytest.approx(best_tpir, abs=1e-12)
    assert figures.threshold_at_fpir(1e-3) is None
    assert figures.to_dict()["tpir_at_fpir"]["1e-3"] is None


def test_ties_count_against_the_probe_and_a_lost_probe_finds_nobody():
    gallery = unit(np.eye(3))
    probes = np.stack([gallery[0], np.full(3, np.nan, np.float32), gallery[2]])
    found = search(probes, np.array([0, 1, 9]), np.concatenate([gallery, gallery[:1]]), np.array([0, 1, 2, 5]))
    assert list(found.mated) == [True, True, False]
    assert found.rank[0] == 2  # subject 5 has the very same vector
    assert found.rank[1] > 1_000_000
    assert found.own[1] == -np.inf
    assert found.other[2] == 1.0
    figures = IdentificationMetrics(found)
    assert figures.hit_rate(1) == 0.0
    assert figures.hit_rate(2) == 0.5


def test_a_gallery_entry_that_was_not_acquired_is_never_found():
    gallery = np.stack([np.full(3, np.nan), [0, 1, 0]]).astype(np.float32)
    found = search(np.array([[1, 0, 0]], np.float32), np.array([0]), gallery, np.array([0, 1]))
    assert found.mated[0]
    assert found.rank[0] > 1_000_000
    assert found.other[0] == 0.0


def test_a_gallery_function_gives_the_same_as_an_array():
    probes, probe_subject, gallery, gallery_subject = world(4)

    def blocks():
        for k in range(0, len(gallery), 9):
            yield gallery[k : k + 9], gallery_subject[k : k + 9]

    a = search(probes, probe_subject, gallery, gallery_subject)
    b = search(probes, probe_subject, blocks)
    np.testing.assert_array_equal(a.rank, b.rank)
    np.testing.assert_allclose(a.other, b.other, atol=1e-6)
    with pytest.raises(ProtocolError, match="a subject for each"):
        search(probes, probe_subject, gallery, gallery_subject[:3])


def test_a_search_reports_both_intervals_and_what_failed():
    probes, probe_subject, gallery, gallery_subject = world(1, subjects=60, enrolled=40)
    probes[0] = np.nan
    found = search(probes, probe_subject, gallery, gallery_subject)
    outcome = search_outcome({"gallery": IdentificationMetrics(found, probe_subject, 200, 0)}, title="t")
    body, (table,) = outcome.results, outcome.tables
    low, high = body["cmc_interval_subjects"]["1"]
    assert low < body["rank_1"] < high
    assert len(table.columns) == 4
    assert body["comparisons"]["failed_to_acquire"] == 1
    assert "1 with a picture that could not be acquired" in table.note
    two = search_outcome({k: IdentificationMetrics(found, probe_subject, 200, 0) for k in ("G1", "G2")}, title="t")
    assert "95 % over subjects" in two.tables[0].note
    assert "(" in two.tables[0].rows[0][1]
