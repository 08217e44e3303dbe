"""From a picture set to normalized batches, on one core: folder, .rec and decoded cache against folder + Pillow.

    python benchmarks/loader.py [--data SRC] [--pictures 2000] [--runs 5]

The reference opens one file at a time with Pillow, converts, mirrors and normalises it with NumPy, and stacks a batch.
The others decode with OpenCV, mirror with cv2.flip, and normalise once per batch into a reused buffer. Without --data
generated faces are used. All are timed in turn in one process and one thread; ratios are of medians. With torch, the
training step of the quickstart's backbone says how far each is from being the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from visavis.data.convert import convert
from visavis.data.decoded_cache.cache import build_cache, open_cache
from visavis.data.sources import open_source
from visavis.data.sources.base import Source
from visavis.opencv import cv2
from visavis.types import ByteArray
from visavis.vision import images

BATCH = 64


def folder_with_pillow(root: Path, names: list[str], flip: np.ndarray) -> None:
    """The usual first loader: a picture at a time through Pillow and NumPy."""
    for start in range(0, len(names), BATCH):
        batch = []
        for name, mirrored in zip(names[start : start + BATCH], flip[start:], strict=False):
            with Image.open(root / name) as picture:
                pixels = np.asarray(picture.convert("RGB"), np.float32)
            if mirrored:
                pixels = pixels[:, ::-1]
            batch.append(((pixels - 127.5) / 128).transpose(2, 0, 1))
        np.stack(batch)


class Batches:
    """Batches of a source into buffers that are used again; float32 in channels-last order, or uint8."""

    def __init__(self, source: Source, shape: tuple[int, ...]) -> None:
        self.source = source
        self.pixels = np.empty((BATCH, *shape), np.uint8)
        self.normal = np.empty((BATCH, *shape), np.float32)

    def fill(self, order: np.ndarray, flip: np.ndarray) -> ByteArray:
        """The pictures of `order`, mirrored where `flip` says, in the uint8 buffer."""
        pixels = self.pixels[: len(order)]
        take = getattr(self.source, "take", None)
        if take is not None:
            take(order, out=pixels)
            for row in np.flatnonzero(flip):
                pixels[row] = cv2.flip(pixels[row], 1)
        else:
            for row, i in enumerate(order):
                picture = self.source.image(int(i))
                if flip[row]:
                    cv2.flip(picture, 1, dst=pixels[row])
                else:
                    pixels[row] = picture
        return pixels

    def run(self, order: np.ndarray, flip: np.ndarray, *, floating: bool = True) -> None:
        """A pass over `order`."""
        for start in range(0, len(order), BATCH):
            pixels = self.fill(order[start : start + BATCH], flip[start : start + BATCH])
            if floating:
                normal = self.normal[: len(pixels)]
                np.multiply(pixels, np.float32(1 / 128), out=normal)
                np.subtract(normal, np.float32(127.5 / 128), out=normal)


def generated(folder: Path, count: int) -> Path:
    """Generated faces as a folder per identity, JPEG at quality 95."""
    from visavis import synthetic

    for k in range(count):
        picture, _ = synthetic.face(0, k // 8, k % 8)
        path = folder / f"id_{k // 8:05d}" / f"{k % 8}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(path, picture)
    return folder


def training_step() -> float | None:
    """Seconds per picture of a training step of the small backbone, one thread; None without torch."""
    try:
        import torch

        from visavis.backbones import build_backbone
    except ImportError:
        return None
    torch.set_num_threads(1)
    network = build_backbone("small", size=(64, 64), dim=128).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    pixels = torch.randn(BATCH, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(6):
        started = time.process_time()
        optimiser.zero_grad()
        network(pixels).square().mean().backward()
        optimiser.step()
        times.append((time.process_time() - started) / BATCH)
    return float(np.median(times[1:]))


def measure(ways: dict[str, Callable[[], None]], runs: int, count: int) -> dict[str, dict[str, float]]:
    """Median and spread of seconds per picture, the ways taken in turn so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            started = time.process_time()
            way()
            if run:
                times[name].append((time.process_time() - started) / count)
    return {
        name: {
            "median": float(np.median(t)),
            "min": min(t),
            "max": max(t),
            "images_per_second": 1 / float(np.median(t)),
        }
        for name, t in times.items()
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="aligned crops as a folder per identity")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loader.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    work = Path(tempfile.mkdtemp())
    try:
        whole = open_source(args.data) if args.data else open_source(generated(work / "made", args.pictures))
        folder = whole.subset(np.linspace(0, len(whole) - 1, min(args.pictures, len(whole))).astype(int))
        list(convert(folder, work / "rec", "record"))
        record = open_source(work / "rec")
        list(build_cache(record, work / "cache"))
        cache = open_cache(record, work / "cache")
        assert cache is not None
        shape = folder.image(0).shape
        rng = np.random.default_rng(0)
        order, flip = rng.permutation(len(folder)), rng.random(len(folder)) < 0.5
        names = [folder.names[i] for i in order]
        ways: dict[str, Callable[[], None]] = {
            "folder + Pillow": lambda: folder_with_pillow(folder.path, names, flip),
            "folder": lambda: Batches(folder, shape).run(order, flip),
            ".rec": lambda: Batches(record, shape).run(order, flip),
            "decoded cache": lambda: Batches(cache, shape).run(order, flip),
            "decoded cache, uint8": lambda: Batches(cache, shape).run(order, flip, floating=False),
        }
        result = measure(ways, args.runs, len(folder))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    reference = result["folder + Pillow"]["median"]
    step = training_step()
    for name, figures in result.items():
        figures["ratio"] = reference / figures["median"]
        if step:
            figures["share_of_training_step"] = figures["median"] / step
        line = f"{name:22} {figures['median'] * 1e6:7.1f} µs/picture  {figures['images_per_second']:8.0f} pictures/s"
        share = f"  {figures['median'] / step:6.2%} of a training step" if step else ""
        print(f"{line}  {figures['ratio']:5.1f}×{share}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    about = {
        "machine": platform.machine(), "python": platform.python_version(), "opencv": cv2.__version__,
        "numpy": np.__version__, "commit": commit, "pictures": len(folder), "shape": list(shape), "batch": BATCH,
        "data": "generated" if args.data is None else args.data.name, "runs": args.runs,
        "clock": "process time, 1 thread", "training_step_per_picture": step,
    }  # fmt: skip
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps({**about, "seconds_per_picture": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
