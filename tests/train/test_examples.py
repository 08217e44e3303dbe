"""The launch examples are well formed and use commands and recipes that exist."""

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", EXAMPLES / "slurm.sbatch"], check=True)


def test_the_jobs_are_yaml_and_train():
    job = yaml.safe_load((EXAMPLES / "pytorchjob.yaml").read_text())
    for replica in job["spec"]["pytorchReplicaSpecs"].values():
        command = replica["template"]["spec"]["containers"][0]["command"]
        assert command[:4] == ["torchrun", "-m", "visavis", "train"]
    cloud = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    assert "-m visavis train" in cloud["run"]


def test_every_recipe_named_exists():
    recipes = {path.stem for path in (ROOT / "src/visavis/recipes").glob("*.yaml")}
    named = set()
    for path in EXAMPLES.iterdir():
        text = path.read_text().replace(", ", " ")
        named |= set(re.findall(r"visavis train ([a-z][\w-]*)", text)) | set(
            re.findall(r"RECIPE(?::-|: )([a-z][\w-]*)", text)
        )
    assert {"arcface", "quickstart"} <= named <= recipes
