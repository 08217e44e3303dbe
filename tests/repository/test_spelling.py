"""US spelling in code, documentation, help and messages, as in torch; only what reads former names keeps them."""

import re

import pytest
from paths import ROOT

PLACES = ("src", "docs", "tests", "benchmarks", "examples", "tools", "README.md", "CONTRIBUTING.md", "pyproject.toml")
KINDS = (".py", ".md", ".yaml", ".toml", ".js", ".html", ".j2", ".css", ".cpp", ".svg")
BRITISH = re.compile(
    r"centre|centring|normalis|quantis|colour|neighbour|behaviour|grey|recognis|licence|enrolment|(?<![a-z])enrols?(?![a-z])"
    r"|learnt|spelt|optimis|initialis|generalis|regularis|minimis|maximis|memoris|artefact|millimetre|judgement|flavour"
    r"|dialogue|(?<!aria-)labelled|modelled|travelled|signalled|favour|honour|analys(?:e[ds]?|ing)(?![a-z])|catalogue"
    r"|organis|serialis|standardis|summaris|synchronis|visualis|randomis|parallelis|tokenis|utilis|categoris|defence"
    r"|fulfil(?![l])|programme(?![dr])|whilst|amongst|skilful",
    re.IGNORECASE,
)
# They read the names of the release before, or say what another program wrote.
FORMER = (
    "src/visavis/_moved.py", "src/visavis/train/former_keys.py", "src/visavis/train/checkpoint_format_1.py",
    "tests/test_moved.py", "tests/repository/test_spelling.py", "tests/train/test_former_keys.py",
    "tests/train/fixtures/", "tests/releases/", "tests/deploy/gallery/old_galleries/",
)  # fmt: skip
FORMER_WORDS = re.compile(
    r"subcentre_arcface|\"sub_centres\"|sub_centres=|\"regulariser\"|centres\.means|\"centres\.\"|\"optimised\.onnx\""
    r"|\"PictureEnrolment\"|\"Enrolment\"|former_arguments\([^)]*\)"
)


def british(text):
    """(line, word) of everything spelled otherwise than in torch."""
    for number, line in enumerate(text.split("\n"), 1):
        yield from ((number, word) for word in BRITISH.findall(FORMER_WORDS.sub("", line)))


@pytest.mark.parametrize("place", PLACES)
def test_words_are_spelled_as_in_torch(place):
    paths = [ROOT / place] if (ROOT / place).is_file() else sorted((ROOT / place).rglob("*"))
    texts = [p for p in paths if p.suffix in KINDS and not p.relative_to(ROOT).as_posix().startswith(FORMER)]
    assert texts
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in texts
        for number, word in british(path.read_text(encoding="utf-8"))
    ]
    assert not found, "US spelling, please (center, normalize, gray, enroll, license …): " + "; ".join(found[:20])


def test_the_list_finds_what_it_must():
    text = "the colour of a licence\nsub_centres=2 and aria-labelledby\nenrol, enrolled, enrols"
    assert list(british(text)) == [(1, "colour"), (1, "licence"), (3, "enrol"), (3, "enrols")]
