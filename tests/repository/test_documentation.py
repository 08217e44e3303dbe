"""Every command the README and docs/ show is one the command line understands; every link leads somewhere."""

import re

import pytest
from documented import PAGES, blocks, visavis_words, words_of
from paths import ROOT

from visavis.cli import VERBS, build_parser


def commands():
    """Those marked as not run too."""
    for page in PAGES:
        for block in blocks(page):
            for command in block.commands:
                for words in words_of(command):
                    told = visavis_words(words)
                    if told is not None:
                        yield pytest.param(told, id=f"{block.name}: {' '.join(told)[:60]}")


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
