"""No verb asks a name server, calls another machine or writes into the home folder, but for visavis' own cache.

Each verb runs in a child with an empty HOME and an environment of its own (under CI some libraries are silent by
themselves). Python's audit events show what Python code asks for; strace, where there is one, what libraries do.
"""

import ast
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from visavis import runtimes

SOURCE = Path(runtimes.__file__).parent
LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.|localhost$|$")
TRAP = """
import os, sys

def note(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        where = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        where = arguments[1]
    else:
        return
    with open(os.environ["TRAPPED"], "a") as file:
        print(event, where if isinstance(where, tuple) else (where,), file=file)

sys.addaudithook(note)
"""


def _can_trace():
    strace = shutil.which("strace")
    return bool(strace) and not subprocess.run([strace, "-f", "-o", os.devnull, "true"], capture_output=True).returncode


TRACED = _can_trace()


def outgoing(folder):
    """Addresses beyond this machine, and name servers, that were called or asked for."""
    found = []
    for line in (folder / "python.txt").read_text().splitlines() if (folder / "python.txt").exists() else []:
        event, _, where = line.partition(" ")
        host, *port = ast.literal_eval(where)
        if not LOOPBACK.match(str(host or "").strip("b'")) or port[:1] == [53]:
            found.append(f"{event} {where}")
    for line in (folder / "strace.txt").read_text().splitlines() if (folder / "strace.txt").exists() else []:
        address = re.search(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"', line)
        if address and (not LOOPBACK.match(address[1]) or "htons(53)" in line):
            found.append(line)
    return found


@pytest.fixture
def child(tmp_path):
    """Starts Python with an empty HOME under watch; `seen()` gives calls out, files in HOME and files beside."""
    home, beside = tmp_path / "home", tmp_path / "beside"
    for folder in (home, beside, tmp_path / "trap", tmp_path / "scratch"):
        folder.mkdir()
    (tmp_path / "trap" / "sitecustomize.py").write_text(TRAP)
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{tmp_path / 'trap'}{os.pathsep}{SOURCE.parent}",
        "TRAPPED": str(tmp_path / "python.txt"),
        "TMPDIR": str(tmp_path / "scratch"),
        "OMP_NUM_THREADS": "1",
    }
    trace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmmsg,sendmsg"]
    trace += ["-e", "signal=none", "-o", str(tmp_path / "strace.txt")]

    def start(*words):
        return subprocess.Popen(
            [*(trace if TRACED else []), sys.executable, *map(str, words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=beside,
        )  # fmt: skip

    def run(*words):
        process = start(*words)
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return SimpleNamespace(out=out, errors=errors)

    def seen():
        files = sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file())
        strange = [name for name in files if not name.startswith(".cache/visavis/")]
        folders = {p.relative_to(home).as_posix() for p in home.iterdir()} - {".cache"}
        return {"calls": outgoing(tmp_path), "home": strange + sorted(folders), "beside": sorted(os.listdir(beside))}

    return SimpleNamespace(start=start, run=run, seen=seen, home=home)


NOTHING = {"calls": [], "home": [], "beside": []}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A tiny model folder with its ONNX file, and a folder of crops with pairs."""
    torch = pytest.importorskip("torch")
    from visavis.backbones import build_backbone
    from visavis.export.gates.parity import crops_of
    from visavis.export.model import open_model
    from visavis.export.pipeline import export_model
    from visavis.models.card import ModelCard
    from visavis.models.torch import save_model
    from visavis.vision.preprocessing import PreprocessSpec

    root = tmp_path_factory.mktemp("material")
    torch.manual_seed(0)
    network = build_backbone("small", size=(112, 112), dim=16, width=8).eval()
    save_model(root / "model", network, ModelCard("m", "small", 16, PreprocessSpec(), backbone_args={"width": 8}))
    export_model(open_model(root / "model"), "onnx", crops_of(None, PreprocessSpec(), count=4))
    rng = np.random.default_rng(0)
    lines = ["2\t2"]
    for i in range(4):
        name = f"p{i}"
        (root / "data" / "images" / name).mkdir(parents=True)
        for k in (1, 2, 3):
            crop = cv2.resize(rng.integers(0, 255, (7, 7, 3), np.uint8), (112, 112))
            cv2.imwrite(str(root / "data" / "images" / name / f"{name}_{k:04d}.png"), crop)
    for a, b in (("p0", "p1"), ("p2", "p3")):
        lines += [f"{a}\t1\t2", f"{b}\t1\t2", f"{a}\t1\t{b}\t1", f"{a}\t2\t{b}\t2"]
    (root / "data" / "pairs.txt").write_text("\n".join(lines) + "\n")
    return SimpleNamespace(root=root, model=root / "model", data=root / "data", images=root / "data" / "images")


def _copy(material, tmp_path):
    return Path(shutil.copytree(material.model, tmp_path / "model"))


def test_a_call_out_and_a_file_in_home_are_seen(child):
    code = (
        "import pathlib, socket\n"
        "pathlib.Path.home().joinpath('intruder').write_text('')\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 53))\n"
    )
    child.run("-c", code)
    seen = child.seen()
    assert seen["home"] == ["intruder", "intruder"]
    assert len(seen["calls"]) == (2 if TRACED else 1)
    assert all("192.0.2.1" in call for call in seen["calls"])


def test_doctor(child):
    assert "onnxruntime" in child.run("-m", "visavis", "doctor").out
    assert child.seen() == NOTHING


def test_verify_enroll_and_identify(child, material, tmp_path):
    a, b = sorted(material.images.glob("p0/*"))[:2]
    for words in (
        ["verify", material.model, a, b, "--aligned"],
        ["enroll", tmp_path / "people.db", material.images, "--model", material.model, "--aligned"],
        ["identify", tmp_path / "people.db", a, "--aligned"],
    ):
        child.run("-m", "visavis", *words)
        assert child.seen() == NOTHING, words[0]


def test_packaged_models_and_their_detector(child, tmp_path):
    """The weights of other packages are read and kept in visavis' own cache; nothing is asked of anybody."""
    from visavis.models.packaged import PACKAGED
    from visavis.synthetic.scenes import scene
    from visavis.vision.detection.yunet_weights import YUNET

    if YUNET.find() is None:
        pytest.skip("the extra pretrained is not installed")
    drawn = [scene(3, number, range(1), size=(256, 256), difficulty=0.2).image for number in (1, 2)]
    files = [tmp_path / f"{number}.png" for number in (1, 2)]
    for file, image in zip(files, drawn, strict=True):
        cv2.imwrite(str(file), image[..., ::-1])
    assert "sface" in child.run("-m", "visavis", "models").out
    for model in [name for name, packaged in PACKAGED.items() if packaged.file.find() is not None]:
        child.run("-m", "visavis", "verify", model, *files, "--detector", "yunet")
    assert child.seen() == NOTHING
    kept = sorted(path.name.rpartition("-")[0] for path in (child.home / ".cache" / "visavis" / "models").iterdir())
    assert "sface" in kept


def _serve(child, material, tmp_path, *, seconds):
    """Start a service, enroll and identify over HTTP, let it idle, stop it by SIGTERM."""
    process = child.start("-m", "visavis", "serve", tmp_path / "people.db", "--model", material.model, "--port", "0")
    line = next(line for line in process.stdout if "page http" in line)
    url = re.search(r"http://[\d.:]+", line)[0]
    until = time.monotonic() + seconds
    assert urllib.request.urlopen(url + "/subjects", timeout=30).status == 200
    urllib.request.urlopen(url + "/metrics", timeout=30).read()
    time.sleep(max(0, until - time.monotonic()))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert child.seen() == NOTHING


def test_serve(child, material, tmp_path):
    _serve(child, material, tmp_path, seconds=1)


@pytest.mark.slow
def test_a_service_left_alone_for_a_while(child, material, tmp_path):
    _serve(child, material, tmp_path, seconds=20)  # a runtime that reports does so after some ten seconds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision"),
    [
        ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"),
        ("openvino", "fp32"), ("openvino", "int8"), ("torch", "fp32"), ("mindir", "fp32"),
    ],
)  # fmt: skip
def test_export(child, material, tmp_path, format, precision):
    if format == "mindir":
        pytest.importorskip("mindspore")
    model = _copy(material, tmp_path)
    words = ["export", model, "--format", format, "--precision", precision, "--crops", "4", "--data", material.data]
    if precision == "int8":
        words += ["--calibrate", material.data, "--calibration-count", "8", "--max-drop", "100"]
    child.run("-m", "visavis", *words)
    assert child.seen() == NOTHING


@pytest.mark.slow
def test_bench(child, material, tmp_path):
    model = _copy(material, tmp_path)
    child.run("-m", "visavis", "export", model, "--format", "openvino", "--crops", "4", "--data", material.data)
    words = ["--seconds", "0.2", "--batch", "1", "--threads", "1", "--json", tmp_path / "bench.json"]
    child.run("-m", "visavis", "bench", model, *words)
    assert all(name in (tmp_path / "bench.json").read_text() for name in ("torch", "onnxruntime", "openvino"))
    assert child.seen() == NOTHING


@pytest.mark.slow
def test_train_evaluate_and_the_pages(child, material, tmp_path):
    run = tmp_path / "run"
    words = ["train", "quickstart", "--out", run, "--loop.steps", "2", "--data.synthetic.identities", "8"]
    child.run("-m", "visavis", *words)
    child.run("-m", "visavis", "validate", material.images, "--html", tmp_path / "data.html")
    words = ["--protocol", "pairs", "--data", material.data, "--html", tmp_path / "a.html"]
    child.run("-m", "visavis", "evaluate", material.model, *words)
    assert "<svg" in (tmp_path / "a.html").read_text()
    assert child.seen() == NOTHING


@pytest.mark.slow
def test_the_verbs_around_data_and_galleries(child, material, tmp_path):
    people, faces = tmp_path / "people.db", tmp_path / "faces"
    for words in (
        ["recipes"],
        ["synth", faces, "--identities", "3", "--images-per-identity", "2", "--size", "112"],
        ["synth", tmp_path / "scenes", "--identities", "2", "--images-per-identity", "1", "--scenes"],
        ["prepare", tmp_path / "scenes", tmp_path / "prepared", "--workers", "2"],
        ["convert", faces, tmp_path / "faces.rec"],
        ["embed", material.model, material.images, "--out", tmp_path / "embedded.npz"],
        ["import", material.model / "model.onnx", "--backbone", "onnx", "--out", tmp_path / "imported",
         "--preprocess", "size=112x112,mean=127.5,std=127.5", "--as-told"],
        ["enroll", people, material.images, "--model", material.model, "--aligned", "--audit", tmp_path / "audit.log"],
        ["gallery", people, "list"],
        ["gallery", people, "duplicates", "--threshold", "0.9"],
        ["forget", people, "p0", "--audit", tmp_path / "audit.log"],
        ["audit", "check", tmp_path / "audit.log"],
    ):  # fmt: skip
        child.run("-m", "visavis", *words)
        assert child.seen() == NOTHING, words[0]


SIDE_EFFECTS = """
import json, logging, os, signal, sys, threading, warnings
import numpy  # hides four warnings of its own
if {"nncf", "onnxscript"} & set(sys.argv):
    import torch  # they load it, and torch hides two warnings of its own
numbers = [s for s in signal.valid_signals()]
def state():
    root = logging.getLogger()
    return {
        "root logger": [root.level, len(root.handlers), root.disabled],
        "environment": dict(os.environ),
        "signals": [str(signal.getsignal(s)) for s in numbers],
        "threads": [t.name for t in threading.enumerate()],
        "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
        "warnings": len(warnings.filters),
        "folder": os.getcwd(),
        "mask": os.umask(os.umask(0)),
    }
before = state()
from visavis.runtimes import import_runtime, onnx_session
for name in sys.argv[2:]:
    import_runtime(name)
import visavis
visavis.load_embedder(sys.argv[1])
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key] and key != "environment"}
new = {k: v for k, v in after["environment"].items() if before["environment"].get(k) != v}
print(json.dumps([changed, new]))
"""


LIGHT = (
    "jinja2", "jsonargparse", "fastapi", "uvicorn", "httpx", "cryptography", "psycopg", "prometheus_client",
    "pi_heif", "huggingface_hub", "fsspec",
)  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        ("onnxruntime",), ("openvino",), ("matplotlib",), ("faiss",), LIGHT,
        pytest.param(("nncf",), marks=pytest.mark.slow),
    ],
    ids=lambda names: names[0],
)  # fmt: skip
def test_a_library_changes_nothing_else_of_the_process(child, material, names):
    there = [name for name in names if importlib.util.find_spec(name) is not None]
    if not there:
        pytest.skip(f"{names[0]} is not installed")
    done = child.run("-c", SIDE_EFFECTS, material.model / "model.onnx", *there)
    changed, new = json.loads(done.out)
    assert set(new) == {"ORT_DISABLE_TELEMETRY", "MPLCONFIGDIR"}
    assert changed == {}
    assert done.errors == ""
    assert child.seen() == NOTHING


def test_runtimes_are_imported_in_one_place():
    silenced = {"onnxruntime", "openvino", "openvino_telemetry", "nncf", "matplotlib", "ray", "mlflow", "wandb", "cv2"}
    found = []
    for path in [*SOURCE.rglob("*.py"), *SOURCE.parents[1].glob("benchmarks/*.py")]:
        if path.name in ("runtimes.py", "opencv.py") or "edge" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typing_only = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if node not in typing_only and silenced & {name.partition(".")[0] for name in names}:
                found.append(f"{path.name}:{node.lineno}: use import_runtime, or visavis.opencv")
    assert found == []


def test_the_edge_folder_s_programs_are_silent_too():
    edge = SOURCE / "export" / "edge"
    python, cpp = (edge / "run.py").read_text(), (edge / "cpp" / "verify.cpp").read_text()
    assert python.index("ORT_DISABLE_TELEMETRY") < python.index("import onnxruntime")
    assert cpp.index("ORT_DISABLE_TELEMETRY") < cpp.index("Ort::Env ")


def test_children_do_not_look_for_libraries_where_they_are_started(child):
    code = (
        "import os, subprocess, sys\n"
        "from visavis.opencv import cv2\n"
        "import visavis.vision.images\n"
        "print(os.environ.get('LD_LIBRARY_PATH'), os.environ['PATH'] == sys.argv[1])\n"
    )
    assert child.run("-c", code, os.environ["PATH"]).out == "None True\n"
