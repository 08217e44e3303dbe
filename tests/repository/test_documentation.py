"""Every command the README and docs/ show is one the command line understands; every link leads somewhere."""

import re
import shlex

import pytest
from paths import ROOT

from visavis.cli import VERBS, build_parser

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands():
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            joined = block.replace("\\\n", " ")
            for line in joined.splitlines():
                found = re.search(r"(?:^|&& |-m )(?:uv run )?visavis (.*)", line.split("  #")[0].strip())
                if found and not re.search(r"[\[|<…]|\.\.\.", found[1]):
                    yield pytest.param(shlex.split(found[1], comments=True), id=f"{page.stem}: {found[1][:60]}")


@pytest.mark.parametrize("words", list(commands()))
def test_a_documented_command_is_understood(words):
    verb = words[0]
    assert verb in VERBS or verb.startswith("-")
    if "--help" in words:
        with pytest.raises(SystemExit) as stop:
            build_parser(verb).parse_known_args(words)
        assert stop.value.code == 0
        return
    args, rest = build_parser(verb).parse_known_args(words)
    assert args.verb == verb
    if verb == "train":
        from visavis.train.recipe import _check_flags

        _check_flags(rest)
    else:
        assert not rest


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_test_command_is_the_one_every_change_must_pass():
    (command,) = re.findall(r"^(uv run pytest.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command.replace("uv", "$uv", 1) + "\n" in (ROOT / ".ci" / "run").read_text()
