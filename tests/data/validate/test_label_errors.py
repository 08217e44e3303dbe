"""Label errors and split people, from embeddings."""

import numpy as np

from visavis.data.validate.label_errors import match_threshold, review_labels


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_label_errors_and_split_people():
    rng = np.random.default_rng(0)
    middle = unit(rng.normal(size=(50, 128)))
    labels = np.repeat(np.arange(50), 6)
    embeddings = unit(middle[labels] + 0.05 * rng.normal(size=(300, 128)))
    embeddings[7] = unit(middle[[31]] + 0.05 * rng.normal(size=(1, 128)))[0]  # filed under 1, is 31
    embeddings[labels == 40] = unit(middle[[41] * 6] + 0.05 * rng.normal(size=(6, 128)))  # 40 and 41 are one
    embeddings[100] = np.nan
    review = review_labels(embeddings, labels, 50)
    assert (review.errors[0].index, review.errors[0].label, review.errors[0].other) == (7, 1, 31)
    assert {e.index for e in review.errors} <= {7} | set(np.flatnonzero((labels == 40) | (labels == 41)).tolist())
    assert [(p.first, p.second) for p in review.same] == [(40, 41)]
    assert 0.2 < review.threshold == match_threshold(embeddings, labels) < 0.7
