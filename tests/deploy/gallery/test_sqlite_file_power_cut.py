"""Power cuts: every write since the last fsync of a file may be lost, or torn; what was acknowledged before is there.

A small C library notes the writes and fsyncs of a process that enrolls and erases; from them the files are made as a
power cut may leave them at any moment, and the gallery is opened.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from paths import TESTS

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery

pytestmark = pytest.mark.slow
MODEL = ModelIdentity("fake", 32, "a" * 64)
SOURCE = TESTS / "support" / "record_writes.c"
CUTS = 120
_PROGRAM = """
import os, sys, random, numpy as np
from visavis.deploy.gallery import template_keeper
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
template_keeper.SMALLEST = 40
def unit(seed):
    return np.random.default_rng(seed).standard_normal((1, 32)).astype(np.float32)
folder, chance = sys.argv[1], random.Random(3)
ledger = os.open(folder + "/ledger", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
people = []
for part in range(3):
    gallery = Gallery(folder + "/people.db", ModelIdentity("fake", 32, "a" * 64), create=True)
    for i in range(40):
        number = 100 * part + i
        gallery.enroll(f"person-number-{number}", unit(number), crops=[np.random.default_rng(number).bytes(3000)])
        os.write(ledger, f"enroll {number}\\n".encode())
        people.append(number)
        if i % 8 == 7:
            number = people.pop(chance.randrange(len(people)))
            os.write(ledger, f"begin {number}\\n".encode())
            if gallery.forget(f"person-number-{number}").complete:
                os.write(ledger, f"forget {number}\\n".encode())
    gallery.search(unit(0))
    gallery.close()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The events of a run, in order."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("noting writes wants Linux and a C compiler")
    place = tmp_path_factory.mktemp("power")
    library, folder, record = place / "record.so", place / "g", place / "record"
    folder.mkdir()
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    environment = {
        **os.environ, "LD_PRELOAD": str(library), "RECORD_TO": str(record), "RECORD_FOLDER": str(folder),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", _PROGRAM, str(folder)], env=environment, check=True)
    events = list(read(record))
    assert replayed(events, len(events))[0]["people.db"] == (folder / "people.db").read_bytes()
    return events


def read(record):
    with record.open("rb") as file:
        while line := file.readline():
            kind, *words = line.decode().split()
            data = file.read(int(words[2])) if kind == "write" else b""
            yield kind, words, data


def replayed(events, stop, rng=None):
    """The files after a power cut behind `events[:stop]`, and how many writes were lost; none without `rng`."""
    last_names, synced = {}, {}
    for kind, words, _ in reversed(events[:stop]):
        if kind == "rename":
            last_names[words[0]] = last_names.get(words[1], words[1])
    for i, (kind, words, _) in enumerate(events[:stop]):
        if kind == "sync":
            synced[last_names.get(words[0], words[0])] = i
    files, lost = {}, 0
    for i, (kind, words, data) in enumerate(events[:stop]):
        name = words[0]
        if kind == "unlink":
            files.pop(name, None)
        elif kind == "rename":
            files[words[1]] = files.pop(name, bytearray())
        elif kind in ("write", "truncate"):
            file = files.setdefault(name, bytearray())
            last = last_names.get(name, name)
            if rng is not None and i > synced.get(last, -1) and last != "ledger" and rng.random() < 0.6:
                lost += 1
                if kind == "truncate" or rng.random() < 0.6:
                    continue
                data = data[: 512 * int(rng.integers(0, len(data) // 512 + 1))]  # torn between two sectors
            at = int(words[1])
            if kind == "truncate":
                del file[at:]
            file.extend(bytes(max(0, at - len(file))))
            file[at : at + len(data)] = data
    return files, lost


def test_what_was_acknowledged_is_there_after_a_power_cut_at_any_moment(recorded, tmp_path):
    rng = np.random.default_rng(0)
    lost = 0
    acknowledged = [i + 1 for i, (kind, words, _) in enumerate(recorded) if kind == "write" and words[0] == "ledger"]
    for cut in range(CUTS):
        stop = int(rng.choice(acknowledged)) if cut % 2 else int(rng.integers(1, len(recorded) + 1))
        files, dropped = replayed(recorded, stop, rng)
        said = [line.split() for line in bytes(files.pop("ledger", b"")).decode().split("\n")[:-1]]
        enrolled, begun, gone = (
            {int(number) for verb, number in said if verb == which} for which in ("enroll", "begin", "forget")
        )
        if not enrolled:
            continue
        lost += dropped
        place = tmp_path / str(cut)
        place.mkdir()
        for name, data in files.items():
            if not name.endswith(("-shm", "-inode")):  # the files are copies: their inodes are others
                (place / name).write_bytes(data)
        with Gallery(place / "people.db", MODEL) as gallery:
            gallery.verify()
            names = {s.name for s in gallery.subjects()}
            assert {f"person-number-{number}" for number in enrolled - begun} <= names, (cut, stop)
            assert not {f"person-number-{number}" for number in gone} & names, (cut, stop)
            for number in sorted(enrolled - begun)[:3]:
                vector = np.random.default_rng(number).standard_normal((1, 32)).astype(np.float32)
                assert gallery.search(vector, top=1)[0][0].name == f"person-number-{number}"
            raw = b"".join(path.read_bytes() for path in place.iterdir())
        for number in gone:
            assert np.random.default_rng(number).bytes(3000)[1000:1100] not in raw, (cut, stop, number)
        shutil.rmtree(place)
    assert lost > 2 * CUTS
