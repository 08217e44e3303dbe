"""Record files made by hand."""

import struct

import numpy as np

from visavis.data.sources.recordio import RecordWriter
from visavis.vision import images


def write_payloads(folder, payloads, *, index=True, keys=None):
    rec, idx = folder / "train.rec", folder / "train.idx"
    with rec.open("wb") as record, idx.open("wb") as lines:
        writer = RecordWriter(record, lines)
        for key, payload in zip(keys or range(len(payloads)), payloads, strict=True):
            writer.write(key, payload)
    if not index:
        idx.unlink()
    return rec


def insightface_set(folder, sizes=(2, 3, 1), *, index=True, extra_labels=()):
    """A training set laid out by hand as InsightFace's: header record, pictures, one range record per identity."""
    n = sum(sizes)
    payloads = [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", n + 1, n + 1 + len(sizes))]
    ranges, key = [], 1
    for label, size in enumerate(sizes):
        for _ in range(size):
            if extra_labels:
                values = (float(label), *extra_labels)
                head = struct.pack("<IfQQ", len(values), 0, key, 0) + struct.pack(f"<{len(values)}f", *values)
            else:
                head = struct.pack("<IfQQ", 0, label, key, 0)
            payloads.append(head + images.encode(np.full((8, 8, 3), 20 * key % 256, np.uint8), ".png"))
            key += 1
        ranges.append((key - size, key))
    payloads += [struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<2f", *pair) for pair in ranges]
    return write_payloads(folder, payloads, index=index)
