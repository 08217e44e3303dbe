"""Every citation of a row of the reference systems leads to that row, and every row has one anchor."""

import re

import pytest
from paths import ROOT

TABLE = ROOT / "docs" / "reference-systems.md"
PLACES = [ROOT / name for name in ("src", "docs", "tests", "benchmarks", "examples", "README.md")]
_ROW = r"(?:rows?\s+)?[DSMA]\d+"
CITATION = re.compile(rf"\b[Rr]ows?\s+[DSMA]\d+(?:\s*(?:,|–|-|\bto\b|\band\b|\bor\b)\s*{_ROW})*")
LAST = {"D": 19, "S": 21, "M": 22, "A": 19}


def anchors():
    return re.findall(r'<a id="([dsma]\d+)"></a>\*\*([DSMA]\d+)\*\*', TABLE.read_text(encoding="utf-8"))


def texts():
    for place in PLACES:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.suffix in (".py", ".md", ".yaml", ".js", ".html", ".j2"):
                # A citation may run over the end of a line, with a comment's sign on the next one.
                yield path, re.sub(r"\n\s*#?\s*", " ", path.read_text(encoding="utf-8"))


def cited(text):
    """The rows a text names; a span names its ends and all between."""
    for found in CITATION.findall(text):
        rows = re.findall(r"[DSMA]\d+", found)
        yield from rows
        for low, high in re.findall(r"([DSMA]\d+)\s*(?:–|-|to)\s*([DSMA]\d+)", found):
            assert low[0] == high[0], found
            assert int(low[1:]) < int(high[1:]), found
            yield from (f"{low[0]}{k}" for k in range(int(low[1:]), int(high[1:])))


def test_every_row_has_one_anchor_of_its_name():
    found = anchors()
    assert [name for name, _ in found] == [row.lower() for _, row in found]
    assert [row for _, row in found] == [f"{letter}{k}" for letter, last in LAST.items() for k in range(1, last + 1)]


@pytest.mark.parametrize("letter", "DSMA")
def test_every_citation_leads_to_its_row(letter):
    rows = {row for _, row in anchors()}
    wrong, count = [], 0
    for path, text in texts():
        for row in cited(text):
            count += row[0] == letter
            if row[0] == letter and row not in rows:
                wrong.append(f"{path.relative_to(ROOT)}: row {row}")
    assert wrong == []
    assert count > 10


def test_citations_are_read_as_people_write_them():
    said = (
        "rows D11, S13, M12, A6; row S7's ε; rows M1 to\n    # M3; rows S5–S7 of; Row A6 and A18, but rows A of B, M9"
    )
    assert sorted(set(cited(re.sub(r"\n\s*#?\s*", " ", said)))) == sorted(
        ["D11", "S13", "M12", "A6", "S7", "M1", "M2", "M3", "S5", "S6", "A18"]
    )


def test_what_only_we_have_is_named_in_tests_and_benchmarks_alone():
    found = [
        path.relative_to(ROOT).as_posix()
        for path, text in texts()
        if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks") and "../shared" in text
    ]
    assert found == []
