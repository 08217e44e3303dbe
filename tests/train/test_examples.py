"""The launch examples are well formed and use commands and recipes that exist."""

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", EXAMPLES / "slurm.sbatch"], check=True)


def test_a_job_started_again_continues_its_run(tmp_path):
    job = yaml.safe_load((EXAMPLES / "pytorchjob.yaml").read_text())
    torchrun = tmp_path / "torchrun"
    torchrun.write_text('#!/bin/sh\necho "$@"\n')
    torchrun.chmod(0o755)
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        container = replica["template"]["spec"]["containers"][0]
        (script,) = container["args"]
        said = []
        for _ in range(2):
            command = [*container["command"], script.replace("/runs", str(tmp_path))]
            environ = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
            said.append(subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout.strip())
            (tmp_path / "arcface").mkdir(exist_ok=True)
            (tmp_path / "arcface" / "recipe.yaml").touch()
        assert said[0] == f"-m visavis train arcface --data /data --out {tmp_path}/arcface"
        assert said[1] == f"-m visavis train --resume {tmp_path}/arcface"
        (tmp_path / "arcface" / "recipe.yaml").unlink()


def test_the_cloud_job_trains():
    cloud = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    assert "-m visavis train" in cloud["run"]


def test_every_recipe_named_exists():
    recipes = {path.stem for path in (ROOT / "src/visavis/recipes").glob("*.yaml")}
    named = set()
    for path in EXAMPLES.iterdir():
        text = path.read_text().replace(", ", " ")
        named |= set(re.findall(r"(?:visavis train |RECIPE:-|RECIPE: |what=\")([a-z][\w-]*)", text))
    assert {"arcface", "quickstart"} <= named <= recipes
