"""From a picture set to normalized batches, on one core: folder, .rec and decoded cache against folder + Pillow.

    python benchmarks/loader.py [--data SRC] [--images 2000] [--runs 5]

The reference opens one file at a time with Pillow, converts, mirrors and normalizes it with NumPy, and stacks a batch.
The others decode with OpenCV, mirror with cv2.flip, and normalize once per batch into a reused buffer. Without --data
generated faces are used. All are timed in turn in one process and one thread; ratios are of medians. With torch, the
training step of the quickstart's backbone says how far each is from being the bottleneck.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
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
            with Image.open(root / name) as image:
                pixels = np.asarray(image.convert("RGB"), np.float32)
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
                image = self.source.image(int(i))
                if flip[row]:
                    cv2.flip(image, 1, dst=pixels[row])
                else:
                    pixels[row] = image
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
        image, _ = synthetic.face(0, k // 8, k % 8)
        path = folder / f"id_{k // 8:05d}" / f"{k % 8}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.write(path, image)
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
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    pixels = torch.randn(BATCH, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(6):
        started = time.process_time()
        optimizer.zero_grad()
        network(pixels).square().mean().backward()
        optimizer.step()
        times.append((time.process_time() - started) / BATCH)
    return float(np.median(times[1:]))


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="aligned crops as a folder per identity")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loader.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    work = Path(tempfile.mkdtemp())
    try:
        whole = open_source(args.data) if args.data else open_source(generated(work / "made", args.images))
        folder = whole.subset(np.linspace(0, len(whole) - 1, min(args.images, len(whole))).astype(int))
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
        result = harness.take_turns(ways, args.runs, count=len(folder))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    reference = result["folder + Pillow"]["median"]
    step = training_step()
    for name, figures in result.items():
        figures["images_per_second"] = 1 / figures["median"]
        figures["ratio"] = reference / figures["median"]
        if step:
            figures["share_of_training_step"] = figures["median"] / step
        line = f"{name:22} {figures['median'] * 1e6:7.1f} µs/picture  {figures['images_per_second']:8.0f} pictures/s"
        share = f"  {figures['median'] / step:6.2%} of a training step" if step else ""
        print(f"{line}  {figures['ratio']:5.1f}×{share}")
    about = harness.about(
        threads=1, images=len(folder), shape=list(shape), batch=BATCH, runs=args.runs, clock="process time",
        data="generated" if args.data is None else args.data.name, training_step_per_image=step,
    )  # fmt: skip
    harness.write({**about, "seconds_per_picture": result}, args.out, show=False)


if __name__ == "__main__":
    main()
