"""Presets D11, S13, M12 and A6 against hand-worked scores and against the published rules written plainly."""

import numpy as np
import pytest
from fake_embedders import Brightness, contrast_world

from visavis.errors import ProtocolError
from visavis.evaluate import evaluate
from visavis.evaluate.embedding import embed_images
from visavis.evaluate.presets import PRESETS, get_preset, pair_measure, preset_table, run_preset, xnorm
from visavis.evaluate.protocols.base import EvaluationSettings


def pairs_of_vectors(seed, n=317, dim=16, noise=0.9):
    rng = np.random.default_rng(seed)
    genuine = rng.random(n) < 0.5
    a = rng.normal(size=(n, dim)) + 0.3
    b = np.where(genuine[:, None], a + rng.normal(size=(n, dim)) * noise, rng.normal(size=(n, dim)) + 0.3)
    x = np.concatenate([a, b])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, np.arange(n), np.arange(n) + n, genuine


def kfold(n, k):
    """Contiguous test folds as scikit-learn's KFold without shuffling makes them."""
    from sklearn.model_selection import KFold

    return [(list(train), list(test)) for train, test in KFold(k).split(np.zeros(n))]


def last_best_cosine(scores, genuine):
    """D11 and S13: match when score > threshold; the last threshold that reaches the best training accuracy."""
    thresholds = np.arange(-1.0, 1.0, 0.005)
    assert len(thresholds) == 400
    accuracies, chosen = [], []

    def accuracy(t, rows):
        return sum((scores[i] > t) == genuine[i] for i in rows) / len(rows)

    for train, test in kfold(len(scores), 10):
        best_accuracy, best = 0, None
        for t in thresholds:
            a = accuracy(t, train)
            if a >= best_accuracy:
                best_accuracy, best = a, t
        accuracies.append(accuracy(best, test))
        chosen.append(best)
    return accuracies, chosen


def first_best_l2(distance, genuine, thresholds):
    """M12 and A6: match when distance < threshold; argmax takes the first; rates averaged over test folds."""
    accuracies, chosen, tprs, fprs = [], [], [], []

    def rates(t, rows):
        d, g = distance[rows], genuine[rows]
        match = d < t
        tp, fp = np.sum(match & g), np.sum(match & ~g)
        tn, fn = np.sum(~match & ~g), np.sum(~match & g)
        return tp / (tp + fn), fp / (fp + tn), (tp + tn) / len(rows)

    for train, test in kfold(len(distance), 10):
        best = np.argmax([rates(t, train)[2] for t in thresholds])
        accuracies.append(rates(thresholds[best], test)[2])
        chosen.append(thresholds[best])
        table = [rates(t, test) for t in thresholds]
        tprs.append([row[0] for row in table])
        fprs.append([row[1] for row in table])
    return accuracies, chosen, np.mean(tprs, 0), np.mean(fprs, 0)


def val_at_far(distance, genuine):
    """M12: FAR of the training folds on arange(0, 4, 0.001), linear in the threshold, judged on the test fold."""
    thresholds = np.arange(0, 4, 0.001)
    vals, fars = [], []
    for train, test in kfold(len(distance), 10):
        d, g = distance[train], genuine[train]
        far = np.array([np.sum((d < t) & ~g) / np.sum(~g) for t in thresholds])
        threshold = 0.0
        if far.max() >= 1e-3:
            above = next(i for i, f in enumerate(far) if f >= 1e-3)
            threshold = thresholds[above]
            if far[above] > 1e-3:
                low = above - 1
                threshold = thresholds[low] + (1e-3 - far[low]) * (thresholds[above] - thresholds[low]) / (
                    far[above] - far[low]
                )
        d, g = distance[test], genuine[test]
        vals.append(np.sum((d < threshold) & g) / np.sum(g))
        fars.append(np.sum((d < threshold) & ~g) / np.sum(~g))
    return vals, fars


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["deepid", "sphereface"])
def test_last_best_cosine_presets(name, seed):
    x, reference, probe, genuine = pairs_of_vectors(seed, noise=0.6 + 0.4 * seed)
    preset = get_preset(name)
    scores = np.array(
        [
            x[a] @ x[b] / (np.linalg.norm(x[a]) * np.linalg.norm(x[b]) + 1e-5)
            for a, b in zip(reference, probe, strict=True)
        ]
    )
    measure = pair_measure(x, reference, probe, preset)
    np.testing.assert_allclose(measure, scores, atol=1e-12)
    found = run_preset(measure, genuine, preset)
    accuracies, chosen = last_best_cosine(scores, genuine)
    np.testing.assert_allclose(found.accuracy, accuracies, atol=1e-12)
    np.testing.assert_allclose(found.threshold, chosen, atol=1e-12)
    assert found.to_dict(preset)["accuracy"]["std"] == pytest.approx(np.std(accuracies), abs=1e-12)


@pytest.mark.parametrize("seed", range(1))
@pytest.mark.parametrize(("name", "step", "count"), [("massface", 0.0025, 1600), ("arcface", 0.01, 400)])
def test_first_best_squared_distance_presets(name, step, count, seed):
    x, reference, probe, genuine = pairs_of_vectors(seed + 10, n=207)
    preset = get_preset(name)
    thresholds = np.arange(0, 4, step)
    assert len(thresholds) == count
    y = x
    if name == "massface":
        y = np.array([(v - v.mean()) / np.linalg.norm(v - v.mean()) for v in x])
    distance = np.array([np.sum(np.square(y[a] - y[b])) for a, b in zip(reference, probe, strict=True)])
    measure = pair_measure(x, reference, probe, preset)
    np.testing.assert_allclose(measure, distance, atol=1e-12)
    found = run_preset(measure, genuine, preset)
    accuracies, chosen, tpr, fpr = first_best_l2(distance, genuine, thresholds)
    np.testing.assert_allclose(found.accuracy, accuracies, atol=1e-12)
    np.testing.assert_allclose(found.threshold, chosen, atol=1e-12)
    assert found.auc == pytest.approx(np.trapezoid(tpr, fpr), abs=1e-12)
    gaps = 1 - fpr - tpr
    k = next(i for i in range(len(gaps)) if gaps[i] <= 0)
    share = gaps[k - 1] / (gaps[k - 1] - gaps[k])
    assert found.eer == pytest.approx(fpr[k - 1] + share * (fpr[k] - fpr[k - 1]), abs=1e-12)
    vals, fars = val_at_far(distance, genuine)
    np.testing.assert_allclose(found.val, vals, atol=1e-12)
    np.testing.assert_allclose(found.far, fars, atol=1e-12)


def test_hand_worked_scores_show_the_tie_rules():
    # Ten folds of two pairs; genuine cosine 0.6, impostor 0.2: every threshold in (0.2, 0.6) is perfect.
    genuine = np.tile([True, False], 10)
    cosine = np.where(genuine, 0.6, 0.2)
    last = run_preset(cosine, genuine, PRESETS["sphereface"])
    assert last.accuracy.mean() == 1.0
    assert last.threshold == pytest.approx(0.595, abs=1e-9)  # the last grid point below 0.6
    distance = np.where(genuine, 0.8, 1.6)  # 2 − 2·cosine
    first = run_preset(distance, genuine, PRESETS["arcface"])
    assert first.threshold == pytest.approx(0.81, abs=1e-9)  # the first grid point above 0.8
    finer = run_preset(distance, genuine, PRESETS["massface"])
    assert finer.threshold == pytest.approx(0.8025, abs=1e-9)
    assert finer.val.mean() == 1.0


def test_a_pair_that_was_not_acquired_never_matches():
    genuine = np.tile([True, False], 10)
    cosine = np.where(genuine, 0.6, 0.2)
    cosine[0] = cosine[3] = np.nan
    found = run_preset(cosine, genuine, PRESETS["deepid"])
    assert list(found.accuracy) == [0.5] + [1.0] * 9


def test_unknown_preset_and_too_few_pairs():
    with pytest.raises(ProtocolError, match="did you mean 'arcface'"):
        get_preset("arcfase")
    with pytest.raises(ProtocolError, match="10 folds, got 4"):
        run_preset(np.zeros(4), np.array([1, 0, 1, 0], bool), PRESETS["deepid"])


def test_folds_of_one_kind_are_told():
    """A list of one fold, all genuine pairs first: contiguous folds are one-sided, and rates over them mean nothing."""
    genuine = np.arange(200) < 100
    for order, count in ((genuine, 10), (np.arange(200) % 2 == 0, 0)):
        found = run_preset(np.where(order, 0.5, 2.0), order, PRESETS["arcface"]).to_dict(PRESETS["arcface"])
        assert found["one_sided_folds"] == count
        assert ("mean nothing here" in preset_table(found).note) == bool(count)
        assert found["accuracy"]["mean"] == 1.0


def test_xnorm_is_the_mean_over_both_views_of_every_listed_picture():
    """Written as insightface's verification.test loops over its two embedding lists."""
    images, pairs = contrast_world()
    embedder = Brightness()
    stored = np.stack(
        [images[pairs.images[i]] for pair in zip(pairs.reference, pairs.probe, strict=True) for i in pair]
    )
    total, count = 0.0, 0
    for embeddings in embedder.views(stored):
        for row in embeddings:
            total += np.linalg.norm(row)
            count += 1
    report = evaluate(embedder, pairs, images, settings=EvaluationSettings(preset="arcface", bootstrap=0))
    assert report.results["preset"]["xnorm"] == pytest.approx(total / count, rel=1e-6)
    assert f"{total / count:.3f}"[:-1] in str(report)
    assert "XNorm" in report.to_html()


def test_xnorm_leaves_out_what_was_not_acquired_and_may_be_unknown():
    lengths = np.array([1.0, 3.0, np.nan])
    assert xnorm(lengths, np.array([0, 0]), np.array([1, 2])) == pytest.approx(5 / 3, abs=1e-12)
    assert xnorm(lengths[2:], np.array([0]), np.array([0])) is None

    class Unit(Brightness):
        measure = None

        def embed(self, crops):
            rows = sum(self.views(crops)).astype(np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    del Unit.measure
    unit = type("Unit", (), {"dim": 4, "embed": Unit.embed, "views": Brightness.views, "mixing": Brightness().mixing})()
    images, pairs = contrast_world()
    report = evaluate(unit, pairs, images, settings=EvaluationSettings(preset="arcface", bootstrap=0))
    assert report.results["preset"]["xnorm"] is None
    assert "XNorm is not known" in str(report)
    with pytest.raises(ProtocolError, match="leave --feature-norms out"):
        embed_images(unit, pairs.images, images, norms=True)
