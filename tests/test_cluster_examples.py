"""The cluster examples: well-formed, and every training command in them is one the command line understands."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from visavis.cli import build_parser
from visavis.train.recipe import load_recipe, recipe_names

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.*"))


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".yaml"], ids=lambda p: p.name)
def test_yaml_is_well_formed(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_slurm_script_is_valid_shell():
    assert subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sbatch")], capture_output=True).returncode == 0


def words_after_train():
    for path in FILES:
        text = path.read_text().replace("\\\n", " ")
        shell = dict(re.findall(r"^ *(RECIPE|DATA|RUN): (\S+)$", text, re.M))
        commands = re.findall(r"(?:visavis train|sbatch examples/slurm\.sbatch) ([a-z][^\n`]*)", text)
        commands += re.findall(r"WHAT=\"([^\"]+)\"", text)
        for command in commands:
            for name, value in shell.items():
                command = command.replace("$" + name, value)
            yield pytest.param(shlex.split(command.split(" #")[0]), id=f"{path.name}: {command[:40]}")


@pytest.mark.parametrize("words", [p for p in words_after_train() if "RECIPE" not in p.values[0]])
def test_a_command_names_a_recipe_and_known_options(words):
    args, rest = build_parser("train").parse_known_args(["train", *words])
    assert bool(args.recipe) != bool(args.resume)
    if args.recipe:
        assert args.recipe in recipe_names()
        load_recipe(args.recipe, rest)
    else:
        assert not rest


def test_every_example_starts_the_same_command():
    for path in FILES:
        assert re.search(r"torchrun.*-m visavis train", path.read_text().replace("\\\n", " "), re.S)
