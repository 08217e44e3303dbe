"""Many processes change one gallery and are killed at any moment: nothing acknowledged is lost, nobody comes back."""

import json
import subprocess
import sys

import pytest
from paths import BENCHMARKS

BENCHMARK = BENCHMARKS / "gallery_torture.py"


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("store", ["file", "postgres"])
def test_nothing_acknowledged_is_lost_under_thirty_kills(store, tmp_path):
    words = [
        "--store",
        store,
        "--operations",
        "1500",
        "--kills",
        "30",
        "--seconds",
        "600",
        "--out",
        tmp_path / "t.json",
    ]
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), *map(str, words)], capture_output=True, text=True, check=False
    )
    assert (tmp_path / f"t_{store}.json").exists(), done.stderr
    said = json.loads((tmp_path / f"t_{store}.json").read_text())
    assert said["clean"], said
    assert (said["kills"], said["operations"] >= 1000, said["integrity"]) == (30, True, "ok")
    assert said["forgotten"] > 30
