"""The launch examples are well formed and use commands and recipes that exist."""

import re
import subprocess

import yaml
from paths import ROOT

EXAMPLES = ROOT / "examples"


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", EXAMPLES / "slurm.sbatch"], check=True)


def test_a_job_started_again_types_the_same_command():
    """`visavis train RECIPE --out RUN` starts or goes on (tests/end_to_end/test_torchrun_restarts.py)."""
    job = yaml.safe_load((EXAMPLES / "pytorchjob.yaml").read_text())
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        container = replica["template"]["spec"]["containers"][0]
        words = " ".join([*container["command"], *container["args"]])
        assert words == "torchrun --max-restarts 3 -m visavis train arcface --data /data --out /runs/arcface"
    for name in ("skypilot.yaml", "slurm.sbatch"):
        text = (EXAMPLES / name).read_text()
        assert "--resume" not in text
        assert text.count("-m visavis train") == 1


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
