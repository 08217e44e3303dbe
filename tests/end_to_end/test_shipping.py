"""Images, Compose, Kubernetes, workflows and citation: linted, parsed, and their commands run as they stand."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from paths import ROOT

import visavis

SHIPPING = ROOT / "shipping"
DOCKERFILES = [ROOT / "Dockerfile", SHIPPING / "train.Dockerfile"]
TOKEN = "a-token-for-the-test"


def read_yaml(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def instructions(path):
    """(INSTRUCTION, text) of a Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", path.read_text(encoding="utf-8")))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfiles_are_linted(path):
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_install_extras_that_exist_and_run_as_nobody_special(path):
    steps = instructions(path)
    extras = re.search(r"/source\[([\w,-]+)\]", dict(steps)["RUN"] if path.name != "Dockerfile" else steps[2][1])
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(known)
    assert dict(steps)["USER"] == "10001"


def words_of_the_image():
    steps = dict(instructions(ROOT / "Dockerfile"))
    return json.loads(steps["ENTRYPOINT"]) + json.loads(steps["CMD"])


def all_serve_commands():
    compose = read_yaml(SHIPPING / "compose.yaml")["services"]["service"]["command"]
    (container,) = read_yaml(SHIPPING / "kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return {"image": words_of_the_image()[1:], "compose": compose, "kubernetes": container["args"]}


@pytest.mark.parametrize("where", ["image", "compose", "kubernetes"])
def test_every_command_is_one_the_program_takes(where):
    words = all_serve_commands()[where]
    child = (
        "import sys, visavis.cli.serve as s, argparse; p = argparse.ArgumentParser(); s.configure(p); "
        "a = p.parse_args(sys.argv[1:]); print(a.host, a.port, a.model)"
    )
    assert words[0] == "serve"
    done = subprocess.run([sys.executable, "-c", child, *words[1:]], capture_output=True, text=True)
    assert done.stdout.split() == ["0.0.0.0", "8000", "sface"], done.stderr


def test_the_images_command_serves_and_its_health_check_sees_it(tmp_path):
    words = [word.replace("/data", str(tmp_path)).replace("0.0.0.0", "127.0.0.1") for word in words_of_the_image()[1:]]
    words[words.index("8000")] = "0"
    environment = {**os.environ, "VISAVIS_TOKEN": TOKEN, "VISAVIS_CACHE": str(tmp_path / "cache")}
    child = subprocess.Popen(
        [sys.executable, "-m", "visavis", *words], stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    )
    try:
        page = next(line for line in child.stdout if "page http" in line)
        port = re.search(r"page http://127\.0\.0\.1:(\d+)/", page)[1]
        check = json.loads(dict(instructions(ROOT / "Dockerfile"))["HEALTHCHECK"].split("CMD ", 1)[1])
        asked = [word.replace(":8000", f":{port}") for word in check]
        assert subprocess.run([sys.executable, *asked[1:]], capture_output=True).returncode == 0
    finally:
        child.terminate()
        child.communicate(timeout=60)
    assert subprocess.run([sys.executable, *asked[1:]], capture_output=True).returncode != 0


def test_kubernetes_files_belong_together():
    folder = SHIPPING / "kubernetes"
    named = read_yaml(folder / "kustomization.yaml")["resources"]
    kinds = {part["kind"]: part for part in (read_yaml(folder / name) for name in named)}
    assert set(kinds) == {"PersistentVolumeClaim", "Deployment", "Service"}
    assert {path.name for path in folder.iterdir()} == {*named, "kustomization.yaml"}
    pod = kinds["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert kinds["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert container["securityContext"]["readOnlyRootFilesystem"]
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == kinds["PersistentVolumeClaim"]["metadata"]["name"]
    from visavis.deploy.server import status_routes

    routes = Path(status_routes.__file__).read_text(encoding="utf-8")
    for probe in ("livenessProbe", "readinessProbe"):
        assert f'"{container[probe]["httpGet"]["path"]}"' in routes


def test_workflows_call_what_is_there():
    jobs = read_yaml(ROOT / ".github/workflows/ci.yml")["jobs"]
    commands = [step["run"] for step in jobs["checks"]["steps"] if "run" in step]
    assert commands == [".ci/run"]
    assert os.access(ROOT / commands[0], os.X_OK)
    release = read_yaml(ROOT / ".github/workflows/release.yml")["jobs"]
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert "password" not in json.dumps(release)


def test_hooks_are_commands_of_the_environment():
    hooks = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    for hook in hooks:
        words = shlex.split(hook["entry"])
        assert words[:2] == ["uv", "run"]
        assert Path(sys.executable).with_name(words[2]).exists()


def test_the_version_stands_in_one_place_and_the_citation_follows():
    assert read_yaml(ROOT / "CITATION.cff")["version"] == visavis.__version__
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert visavis.__version__ not in re.search(r"(?s)\[project\].*?\n\[", text)[0]
    tree = ast.parse((ROOT / "src/visavis/__init__.py").read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.Assign) and node.targets[0].id == "__version__" for node in tree.body)
