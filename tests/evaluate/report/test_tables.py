"""Tables in every form."""

import pytest

from visavis.evaluate.report.tables import Table


def test_a_table_in_every_form():
    table = Table("A & B", ("model", "TMR %"), (("m_1", "9|9"),), "note")
    assert "m_1" in table.to_text()
    assert r"9\|9" in table.to_markdown()
    assert r"m\_1 & 9|9 \\" in table.to_latex()
    assert r"A \& B. note" in table.to_latex()
    with pytest.raises(ValueError, match="2 columns"):
        Table("x", ("a", "b"), (("1",),))


def test_latex_knows_every_sign():
    text = Table("a ≤ b_{c}\\d", ("x", "d′"), (("2 … 3 ~^", "± 5 % – −1 < 2 > 1 · 3 × 4"),)).to_latex()
    assert text.isascii()
    assert r"$\leq$ b\_\{c\}\textbackslash{}d" in text


def test_a_column_with_nothing_in_any_row_is_left_out():
    table = Table("t", ("figure", "value", "95 % (subjects)"), (("a", "1", ""), ("b", "2", "")))
    assert table.columns == ("figure", "value")
    assert table.rows == (("a", "1"), ("b", "2"))
    assert "subjects" not in table.to_text()
    assert Table("t", ("figure", "value"), (("a", "1"), ("b", ""))).columns == ("figure", "value")
