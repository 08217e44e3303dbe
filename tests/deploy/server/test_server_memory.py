"""Memory after many hostile pictures is what it was before: nothing they made the service take stays."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import BENCHMARKS

QUICK = [
    "jpeg 40 MP, last scan 500 times", "jpeg with EXIF of 5,000 tags of 60 KB",
    "jpeg of 300 scans, 1 MP", "png of 1.3 million empty IDAT", "png with EXIF of 60,000 tags of 8 MB",
    "tiff of 3 million strips", "gif of 7 million blocks", "ppm with a maximum of 254", "png 6300x6300",
]  # fmt: skip
HEAVY = ["jpeg 65500x600", "jpeg baseline 40 MP without data"]
CHILD = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, sys.argv[1])
import hostile_images
import numpy as np
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.server.batching import BatchingEmbedder
from visavis.deploy.server.handlers import RequestHandlers
from visavis.deploy.server.settings import ServiceSettings
from visavis.errors import VisavisError
from visavis.machine import release_memory
from visavis.vision.preprocessing import PreprocessSpec

class Embedder:
    dim = 4
    def embed(self, crops):
        return np.ones((len(crops), 4), np.float32) / 2

def resident():
    release_memory()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

def ask(data):
    try:
        handlers.embed([("picture", data)], aligned=False)
    except VisavisError:
        return

quick, heavy, count = json.loads(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
handlers = RequestHandlers(Recognizer(Embedder(), spec=PreprocessSpec()), None, ServiceSettings())
small = [hostile_images.BOMBS[name]() for name in quick]
large = [hostile_images.BOMBS[name]() for name in heavy]
with ThreadPoolExecutor(4) as pool:
    list(pool.map(ask, [*small, *large, *large] * 5))  # each of the threads keeps buffers after its first of a kind
    before = resident()
    list(pool.map(ask, (large[i % len(large)] if i % 40 == 0 else small[i % len(small)] for i in range(count))))
    print(json.dumps([before, resident()]))
"""


def growth(count: int) -> float:
    """MB that a process holds more after `count` hostile pictures than after three rounds of them."""
    words = [str(BENCHMARKS), json.dumps(QUICK), json.dumps(HEAVY), str(count)]
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    return after - before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_after_some_hostile_pictures():
    assert growth(40) < 50


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_after_ten_thousand_hostile_pictures():
    assert growth(10_000) < 50
