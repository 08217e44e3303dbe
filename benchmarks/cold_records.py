"""Records of a cold file in random order on 8 threads: by pread, as the source reads, and by slices of a memory map.

    python benchmarks/cold_records.py [--records 100000] [--bytes 10000] [--folder DIR]

Before each turn the kernel is told to drop the file (POSIX_FADV_DONTNEED). What the disk gave is counted by
/proc/self/io; what an innocent thread had to wait is how late it wakes from a sleep of 1 ms. Linux only.
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
import numpy as np

from visavis.data.sources.rec import RecordSource, open_records
from visavis.data.sources.recordio import RecordWriter, pack

THREADS, TURNS = 8, 3


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--folder", help="where the file is made; a disk, not memory")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cold_records.json")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        source = made(folder, args.records, args.bytes)
        with source.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            ends = [*source.offsets[1:].tolist(), source.file.size]
            starts = source.offsets.tolist()
            ways: dict[str, Callable[[int], bytes]] = {
                "pread": source.read,
                "memory map": lambda i: mapped[starts[i] : ends[i]],
            }
            turns: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
            for _ in range(TURNS):
                for name, read in ways.items():
                    turns[name].append(turn(source, mapped, read))
    finally:
        shutil.rmtree(folder)
    rows = {name: {k: statistics.median(t[k] for t in rows) for k in rows[0]} for name, rows in turns.items()}
    for name, row in rows.items():
        print(f"{name:12} " + "  ".join(f"{value:,.2f} {key}" for key, value in row.items()))
    faster = rows["pread"]["records/s"] / rows["memory map"]["records/s"]
    print(f"pread is {faster:.1f} times as fast")
    about = harness.about(threads=THREADS, records=args.records, record_bytes=args.bytes, turns=TURNS)
    harness.write({**about, "medians": rows, "pread / memory map": faster}, args.out, show=False)


def made(folder: Path, count: int, size: int) -> RecordSource:
    """Records of noise, on the disk."""
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes()
    with (folder / "train.rec").open("wb") as record, (folder / "train.idx").open("wb") as index:
        writer = RecordWriter(record, index)
        for i in range(count):
            writer.write(i, pack(noise, float(i // 8), id=i))
        record.flush()
        os.fsync(record.fileno())
    return open_records(folder)


def turn(source: RecordSource, mapped: mmap.mmap, read: Callable[[int], bytes]) -> dict[str, float]:
    """Read one in fifty of the records from the cold file, so that what a read brings beside its own helps no other."""
    for each in (mapped, source.file._map):  # pages that are mapped would stay
        each.madvise(mmap.MADV_DONTNEED)
    with source.path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    order = np.random.default_rng(1).permutation(len(source))[: len(source) // 50].tolist()
    late: list[float] = []
    done = threading.Event()

    def bystander() -> None:
        while not done.is_set():
            begun = time.perf_counter()
            time.sleep(0.001)
            late.append(time.perf_counter() - begun - 0.001)

    watch = threading.Thread(target=bystander)
    watch.start()
    before, begun = disk_bytes(), time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda part: [len(read(i)) for i in part], np.array_split(order, 64)):
            pass
    seconds = time.perf_counter() - begun
    read_bytes = disk_bytes() - before
    done.set()
    watch.join()
    return {
        "records/s": len(order) / seconds,
        "kB from the disk a record": read_bytes / len(order) / 1000,
        "ms late, p99": 1000 * float(np.percentile(late, 99)),
    }


def disk_bytes() -> int:
    """Bytes this process made the disk read."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


if __name__ == "__main__":
    main()
