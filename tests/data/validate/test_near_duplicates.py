"""Near duplicates: hashes of one image and another, bursts of one moment."""

import numpy as np
from face_like import altered, face_like, put

from visavis.data.sources import open_source
from visavis.data.validate.duplicates import close_hashes, perceptual_hashes
from visavis.data.validate.fingerprints import feature_of
from visavis.data.validate.near_duplicates import confirm, correlation, detail_of
from visavis.vision import images


def test_hashes_of_one_picture_are_close_and_of_others_far():
    images = [face_like(k) for k in range(60)]
    changed = [altered(images[k], how) for k, how in enumerate(("jpeg", "brighter", "smaller", "cropped"))]
    feature = np.stack([feature_of(p) for p in images + changed])
    valid = np.ones(64, bool)
    found = {(i, j): d for i, j, d in close_hashes(perceptual_hashes(feature, valid), valid).tolist()}
    assert set(found) == {(k, 60 + k) for k in range(4)}
    for k in range(4):
        assert correlation(detail_of(images[k]), detail_of(changed[k])) > 0.85
    others = [correlation(detail_of(images[i]), detail_of(images[j])) for i in range(12) for j in range(i)]
    assert max(others) < 0.7


def test_of_one_moment_a_chain_is_found_not_every_pair(tmp_path):
    image = face_like(3)
    for k in range(8):  # one photograph, eight encodings, one identity
        put(tmp_path / "s", "Ann", f"{k}.jpg", images.encode(image, ".jpg", quality=60 + k))
    for k in range(3):
        put(tmp_path / "s", f"B{k}", "0.jpg", images.encode(image, ".jpg", quality=90 + k))
    source = open_source(tmp_path / "s")
    every = np.array([(i, j, 1) for i in range(11) for j in range(i + 1, 11)])
    matches = [match for _, match in confirm(every, source) if match is not None]
    inside = [m for m in matches if source.labels[m.first] == source.labels[m.second]]
    assert len(inside) == 7
    assert len(matches) - len(inside) == 27
    assert [done for done, _ in confirm(every, source)] == list(range(1, 56))
    again = np.concatenate([every] * 80)  # later rounds leave out what hangs together already
    assert sum(m is not None and m.second < 8 for _, m in confirm(again, source, workers=2)) == 7
