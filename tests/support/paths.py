"""Where the repository lies, and the real faces beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
BENCHMARKS = ROOT / "benchmarks"
SHARED = ROOT.parent / "shared"
