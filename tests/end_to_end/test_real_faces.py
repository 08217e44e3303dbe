"""The whole way on real pictures: detect, align, embed with published weights, verify, enroll and identify."""

import numpy as np
import pytest

from visavis.cli import main
from visavis.deploy.enrollment import enroll_images
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer

pytestmark = pytest.mark.slow


def test_published_weights_tell_people_apart(shared, tmp_path):
    weights, root = shared / "weights" / "mobilefacenet_casia_112x96.ckpt", shared / "lfw-raw" / "images"
    if not weights.is_file() or not root.is_dir():
        pytest.skip("no published weights or pictures")
    assert main(["import", str(weights), "--out", str(tmp_path / "model")]) == 0
    recognizer = Recognizer.load(tmp_path / "model")
    people = [folder for folder in sorted(root.iterdir()) if len(list(folder.iterdir())) >= 2][:12]
    pairs = [sorted(folder.iterdir())[:2] for folder in people]
    first, second = (recognizer.embed([pair[i] for pair in pairs]) for i in (0, 1))
    similarity = first @ second.T
    genuine, impostor = np.diag(similarity), similarity[~np.eye(len(pairs), dtype=bool)]
    assert np.median(genuine) > 0.45
    assert np.median(np.abs(impostor)) < 0.15
    assert (genuine[:, None] > impostor).mean() > 0.97
    with Gallery(tmp_path / "g.db", recognizer.identity, create=True) as gallery:
        for folder, (image, _) in zip(people, pairs, strict=True):
            enroll_images(recognizer, gallery, folder.name, [image])
        enrolled = {s.name for s in gallery.subjects()}
        assert len(enrolled) >= 8  # the rest show several faces of one size
        found = gallery.search(second, top=1)
        right = [c[0].name == f.name for f, c in zip(people, found, strict=True) if f.name in enrolled]
        assert np.mean(right) >= 0.8
