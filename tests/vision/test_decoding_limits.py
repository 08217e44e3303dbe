"""Pictures made to cost: each is decoded within limits of time and memory, or refused, in a child that is measured."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jpegs import jpeg, smooth
from PIL import Image

from visavis.errors import DataError
from visavis.vision import images

CHILD = """
import json, resource, sys, time
from PIL import Image
from visavis.errors import DataError
from visavis.vision import images
import cv2
cv2.setNumThreads(1)
data = open(sys.argv[1], "rb").read()
images.decode(images.encode(images.resize(__import__("numpy").zeros((9, 9, 3), "uint8"), (480, 640)), ".jpg"))
seconds, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    said = list(images.decode_reduced(data, max_pixels=40_000_000, max_whole=20_000_000).pixels.shape)
except DataError as error:
    said = str(error)
used = time.process_time() - seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps([*used, said]))
"""


def cost(data: bytes, folder: Path) -> tuple[float, float, object]:
    """Seconds of CPU, MB above an ordinary picture's, and the answer's shape or the refusal."""
    (folder / "bomb").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder / "bomb")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(json.loads(done.stdout))


QUICK = [
    "png 100000x100000", "png zTXt of 100 MB", "jpeg 40 MP, last scan 500 times", "ppm of 39 MP without pixels",
    "jpeg arithmetic 40 MP without data", "jpeg baseline 40 MP without data", "jpeg with EXIF of 5,000 tags of 60 KB",
    "jpeg of 300 scans, 1 MP", "png of 1.3 million empty IDAT", "png with EXIF of 60,000 tags of 8 MB",
    "tiff of 4,000 tags of 15 MB", "tiff of 3 million strips", "gif of 7 million blocks",
    "bmp with run lengths of nothing", "ppm with a maximum of 254", "jpeg of 4 million empty segments",
]  # fmt: skip


@pytest.mark.parametrize("name", QUICK)
def test_a_bomb_costs_little_or_is_refused(hostile, name, tmp_path):
    seconds, megabytes, said = cost(hostile.BOMBS[name](), tmp_path)
    assert seconds < 1.0, said
    assert megabytes < 200, said


@pytest.mark.slow
def test_every_bomb_costs_little_or_is_refused(hostile, tmp_path):
    for name, make in hostile.BOMBS.items():
        seconds, megabytes, said = cost(make(), tmp_path)
        assert seconds < 1.5, (name, said)
        assert megabytes < 300, (name, said)


@pytest.mark.parametrize(("large", "divisor"), [(60_000, 1), (59_999, 2), (15_000, 2), (14_999, 4), (1, 8), (None, 1)])
@pytest.mark.parametrize("exif", [False, True])
def test_large_jpegs_are_decoded_reduced_and_say_by_how_much(large, divisor, exif):
    whole = smooth(200, 300)
    options = {}
    if exif:
        tags = Image.Exif()
        tags[0x0112] = 6
        options["exif"] = tags
    got = images.decode_reduced(jpeg(whole, **options), large=large)
    assert got.divisor == divisor
    expected = images.resize(whole, (-(-200 // divisor), -(-300 // divisor)))
    expected = np.rot90(expected, -1) if exif else expected
    assert got.pixels.shape == expected.shape
    assert np.abs(got.pixels.astype(int) - expected)[4:-4, 4:-4].mean() < 4


def test_other_formats_have_a_limit_of_their_own():
    buffer = io.BytesIO()
    Image.new("RGB", (100, 100)).save(buffer, "PNG")
    assert images.decode_reduced(buffer.getvalue(), max_pixels=20_000, max_whole=10_000).pixels.shape == (100, 100, 3)
    with pytest.raises(DataError, match="100×100 pixels exceed the limit of 9,999"):
        images.decode_reduced(buffer.getvalue(), max_pixels=20_000, max_whole=9_999)
    assert images.decode_reduced(jpeg(smooth(100, 200)), max_pixels=20_000, max_whole=10).pixels.shape == (100, 200, 3)
