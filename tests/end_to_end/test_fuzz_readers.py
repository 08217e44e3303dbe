"""Every reader of foreign bytes against mutated and truncated files: a result or a VisavisError, soon and small.

The default run tries a few inputs of each reader; `-m slow` tries 10,000 of each class of readers (`CLASSES`), dealt to
its readers, more than 70,000 in all.
"""

import pickle
import random
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from visavis.data.convert import convert
from visavis.data.decoded_cache.cache import build_cache, open_cache
from visavis.data.pair_lists.benchmarks import bin_pairs, read_cfp, read_two_lines, read_video_pairs
from visavis.data.pair_lists.reader import read_pairs
from visavis.data.prepare import read_manifest
from visavis.data.sources import open_source, read_identities
from visavis.data.sources.bin import open_bin, write_bin
from visavis.data.sources.lists import read_list
from visavis.data.sources.rec import open_records
from visavis.errors import VisavisError
from visavis.evaluate.protocols.ijb import read_meta
from visavis.evaluate.protocols.integer_lists import read_integers
from visavis.models.card import ModelCard, read_card, write_card
from visavis.models.checkpoints import read_checkpoint
from visavis.models.load import load_embedder
from visavis.vision import images
from visavis.vision.detection.detectors import load_detector
from visavis.vision.preprocessing import PreprocessSpec

MEMORY = 2 << 30
INTERESTING = [0, 1, 2, 3, 127, 128, 255, 256, 32767, 65535, 2**29, 2**31 - 1, 2**32 - 1]


@dataclass(frozen=True)
class Case:
    """A folder of real files, the one that is mutated, and what reads it."""

    folder: Path
    file: str
    read: Callable[[Path], object]
    text: bool = False


def image(seed: int, size: int = 24) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return images.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (size, size))


def whole(source) -> None:
    """Read every picture, each allowed to be damaged for itself."""
    for i in range(min(len(source), 50)):
        try:
            source.image(i)
        except VisavisError:
            continue


def small_onnx(path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["image"], ["embedding"], axes=[2, 3], keepdims=0)]
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])]
    outs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends, outs), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    card = ModelCard("tiny", "onnx", 3, PreprocessSpec((16, 16)))
    model.metadata_props.add(key="visavis.card", value=card.to_json())
    onnx.save(model, path)


def detector_onnx(path: Path) -> None:
    """Nine outputs, as SCRFD's."""
    nodes = [helper.make_node("Relu", ["input"], [f"out{k}"]) for k in range(9)]
    shape = [1, 3, 64, 64]
    ends = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    outs = [helper.make_tensor_value_info(f"out{k}", TensorProto.FLOAT, shape) for k in range(9)]
    graph = helper.make_graph(nodes, "g", ends, outs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def make_cases(root: Path) -> dict[str, Case]:
    def folder(name: str) -> Path:
        (root / name).mkdir(parents=True)
        return root / name

    cases: dict[str, Case] = {}
    plain = folder("pictures")
    for kind in ("jpg", "png", "webp", "bmp"):
        images.write(plain / f"a.{kind}", image(1))
        cases[f"picture .{kind}"] = Case(plain, f"a.{kind}", images.read)
    from PIL import Image

    for kind in ("gif", "tiff", "ppm"):
        Image.fromarray(image(2)).save(plain / f"b.{kind}")
        cases[f"picture .{kind}"] = Case(plain, f"b.{kind}", images.read)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image(3)).convert("CMYK").save(plain / "c.jpg", exif=exif)
    cases["picture CMYK with EXIF"] = Case(plain, "c.jpg", images.read)

    people = folder("people")
    for who in ("Ann", "Bob"):
        (people / who).mkdir()
        for n in range(3):
            images.write(people / who / f"{n}.jpg", image(n))
    source = open_source(people)
    list(convert(source, folder("rec"), "record"))
    for name, kind in (("train.rec", ".rec"), ("train.idx", ".idx"), ("train.lst", ".lst")):
        cases[f"records {kind}"] = Case(
            root / "rec", name, lambda p: whole(open_records(p.with_suffix(".rec"))), kind != ".rec"
        )
    cases["records, damage skipped"] = Case(
        root / "rec", "train.rec", lambda p: whole(open_records(p, skip_damaged=True))
    )
    bare = folder("rec_without_idx")
    shutil.copy(root / "rec" / "train.rec", bare)
    cases["records without .idx"] = Case(bare, "train.rec", lambda p: whole(open_records(p, skip_damaged=True)))

    bins = folder("bin")
    encoded = [source.read(i % 6) for i in range(8)]
    list(write_bin(encoded, [True, False] * 2, bins / "a.bin"))
    (bins / "b.bin").write_bytes(
        pickle.dumps(([np.frombuffer(p, np.uint8) for p in encoded], np.array([True, False] * 2)), 2)
    )
    (bins / "c.bin").write_bytes(pickle.dumps(([image(k, 8) for k in range(4)], [1, 0]), 5))
    (bins / "d.bin").write_bytes(pickle.dumps((encoded[:4], [True, False]), 0))
    for name in "abcd":
        cases[f"set {name}.bin"] = Case(bins, f"{name}.bin", lambda p: (whole(open_bin(p)), bin_pairs(open_bin(p))))

    lists = folder("lists")
    five = "30.5\t50\t65\t51\t48\t71\t33\t92\t62\t93"
    texts: dict[str, tuple[str, Callable[[Path], object]]] = {
        "pairs.txt": ("2\t1\nAnn Lee\t1\t2\nAnn Lee\t1\tBob\t3\nBob\t1\t4\nBob\t1\tCy\t1\n", read_pairs),
        "paths.txt": ("Ann/0.jpg\tAnn/1.jpg\t1\nAnn/0.jpg\tBob B/1.jpg\t0\n", read_pairs),
        "blanks.txt": ("Ann Lee 1 2\nAnn Lee 1 Bob 4\n", read_pairs),
        "calfw.txt": ("a.jpg 1\nb.jpg 1\nc.jpg 2\nd.jpg 2\ne.jpg 0\nf.jpg 0\n", read_two_lines),
        "landmarks.txt": (f"Ann/0.jpg\t0\t{five}\nBob/1.jpg\t{five}\n", read_list),
        "labels.txt": ("Ann/0.jpg 0\nAnn Lee/1.jpg 1\n", read_list),
        "people.txt": ("Ann\nBob\n", read_identities),
        "splits.txt": (
            "split, first, second, similarity, same\n1, Ann/0, Bob/1, 0.25, 0\n2, Ann/0, Ann/1, 0.5, 1\n",
            read_video_pairs,
        ),
        "cplfw.txt": ("a_1.jpg 1\nb_1.jpg 1\nc_1.jpg 0\nd_1.jpg 0\n", read_two_lines),
        "meta.txt": ("1 2 3\n4 5 6\n70 80 90\n", lambda p: read_integers(p, columns=3, cache=p.parent / "cache")),
        "manifest.jsonl": (
            '{"settings": {"size": [112, 112]}}\n{"source": "a", "outputs": ["a.jpg"]}\n\n',
            read_manifest,
        ),
    }
    for name, (text, read) in texts.items():
        (lists / name).write_text(text)
        cases[f"list {name}"] = Case(lists, name, read, text=True)
    cfp = folder("cfp/Split/FP/01")
    (cfp / "same.txt").write_text("1,2\n2,1\n")
    (cfp / "diff.txt").write_text("1,3\n3,1\n")
    for side in "FP":
        text = "".join(f"{k} ../Data/Images/{k:03d}/x/01.jpg\n" for k in (1, 2, 3))
        (root / "cfp" / f"Pair_list_{side}.txt").write_text(text)
    ijb = folder("ijb/meta").parent
    (ijb / "loose_crop").mkdir()
    scores = "".join(f"{k}.jpg {five} 0.9\n".replace("\t", " ") for k in (1, 2, 3))
    (ijb / "meta" / "ijbc_name_5pts_score.txt").write_text(scores)
    (ijb / "meta" / "ijbc_face_tid_mid.txt").write_text("1.jpg 1 7\n2.jpg 1 8\n3.jpg 2 9\n")
    for name in ("ijbc_name_5pts_score.txt", "ijbc_face_tid_mid.txt"):
        cases[f"IJB {name}"] = Case(ijb, f"meta/{name}", lambda p: read_meta(p.parents[1]), text=True)
    cases["CFP numbers"] = Case(root / "cfp", "Pair_list_P.txt", lambda p: read_cfp(p.parent), text=True)
    cases["CFP pairs"] = Case(root / "cfp", "Split/FP/01/diff.txt", lambda p: read_cfp(p.parents[3]), text=True)

    cache = folder("cache")
    list(build_cache(source, cache))
    name = next(cache.glob("*.npy")).name
    cases["decoded cache"] = Case(cache, name, lambda p: open_cache(source, p.parent))

    models = folder("models")
    write_card(models, ModelCard("m", "small", 128, PreprocessSpec()))
    cases["card.json"] = Case(models, "card.json", lambda p: read_card(p.parent), text=True)
    state = {"conv.weight": torch.randn(4, 3, 3, 3), "bn.running_mean": torch.zeros(4)}
    torch.save({"net_state_dict": state, "epoch": 3}, models / "a.pt")
    torch.save(state, models / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, models / "a.safetensors")
    for name in ("a.pt", "old.pt", "a.safetensors"):
        cases[f"checkpoint {name}"] = Case(models, name, read_checkpoint)
    small_onnx(models / "a.onnx")
    cases["model .onnx"] = Case(models, "a.onnx", load_embedder)
    detector_onnx(models / "d.onnx")
    cases["detector .onnx"] = Case(models, "d.onnx", lambda p: load_detector(str(p)))
    return cases


def mutate(data: bytes, rng: random.Random, *, text: bool) -> bytes:
    """A few changes: bits, bytes, cut, doubled or moved pieces, numbers replaced, lines mixed."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        how = rng.randrange(9)
        at = rng.randrange(len(out) + 1)
        if how == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif how == 2:
            del out[at:]
        elif how == 3:
            del out[at : at + rng.randrange(1, 20)]
        elif how == 4:
            out[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif how == 5:
            piece = out[at : at + rng.randrange(1, 60)]
            out[at:at] = piece * rng.randrange(1, 4)
        elif how == 6 and len(out) >= 8:
            at = rng.randrange(len(out) - 7)
            width = rng.choice([1, 2, 4, 8])
            value = rng.choice(INTERESTING) % (1 << 8 * width)
            out[at : at + width] = value.to_bytes(width, rng.choice(["little", "big"]))
        elif how == 7 and text:
            lines = out.split(b"\n")
            rng.shuffle(lines)
            out = bytearray(b"\n".join(lines))
        elif how == 8 and text:
            word = rng.choice(
                [
                    b"nan",
                    b"-1",
                    b"99999999999999999999",
                    b"\t",
                    b"..",
                    b"/",
                    b"\xff",
                    b"\0",
                    b"1e999",
                    "²".encode(),
                    "٣".encode(),
                    b"{",
                    b'"',
                ]
            )
            out[at:at] = word
    return bytes(out)


def fuzz(cases: dict[str, Case], folder: Path, count: int, seed: int) -> tuple[int, list[str]]:
    """Try `count` inputs of each case; how many were tried, and what went wrong."""
    wrong: list[str] = []
    tried = 0
    for name, case in cases.items():
        work = folder / f"{seed}-{len(list(folder.iterdir()))}"
        shutil.copytree(case.folder, work)
        path, original = work / case.file, (case.folder / case.file).read_bytes()
        try:
            case.read(path)
        except VisavisError as error:
            wrong.append(f"{name}: the real file is refused: {error}")
        for k in range(count):
            data = mutate(original, random.Random(f"{seed} {name} {k}"), text=case.text)
            path.unlink()
            path.write_bytes(data)
            started = time.process_time()
            tried += 1
            try:
                case.read(path)
            except VisavisError:
                pass
            except BaseException as error:
                wrong.append(f"{name} #{k}: {type(error).__name__}: {str(error)[:160]}")
                if isinstance(error, KeyboardInterrupt):
                    raise
            if time.process_time() - started > 1:
                wrong.append(f"{name} #{k}: took {time.process_time() - started:.1f} s")
    return tried, wrong


@pytest.fixture
def bounded():
    """Two gigabytes above what is mapped now; more is a MemoryError, which no reader may raise."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_few_of_each(tmp_path, bounded):
    cases = make_cases(tmp_path / "real")
    (tmp_path / "work").mkdir()
    tried, wrong = fuzz(cases, tmp_path / "work", 6, seed=1)
    assert tried == 6 * len(cases)
    assert not wrong, "\n".join(wrong)


# Class of readers: how the names of its cases begin.
CLASSES = {
    "pictures": ("picture",),
    "record files": ("records",),
    "verification sets": ("set",),
    "lists and meta files": ("list", "IJB", "CFP"),
    "decoded cache": ("decoded",),
    "model cards": ("card",),
    "checkpoints": ("checkpoint",),
    "ONNX": ("model", "detector"),
}
PER_CLASS = 10_000


def test_every_case_belongs_to_one_class(tmp_path):
    for name in make_cases(tmp_path / "real"):
        assert sum(name.startswith(beginnings) for beginnings in CLASSES.values()) == 1, name


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", CLASSES)
def test_ten_thousand_of_each_class(tmp_path, bounded, kind, record_property):
    cases = {name: case for name, case in make_cases(tmp_path / "real").items() if name.startswith(CLASSES[kind])}
    (tmp_path / "work").mkdir()
    tried, wrong = fuzz(cases, tmp_path / "work", -(-PER_CLASS // len(cases)), seed=2)
    record_property("inputs", tried)
    print(f"{kind}: {tried:,} inputs over {len(cases)} readers")
    assert tried >= PER_CLASS
    assert not wrong, "\n".join(wrong[:50])
