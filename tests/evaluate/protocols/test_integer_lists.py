"""Lists of whole numbers: equal to splitting lines, strict about what they hold, cached in binary."""

import numpy as np
import pytest

from visavis.errors import DataError, ProtocolError
from visavis.evaluate.protocols import integer_lists
from visavis.evaluate.protocols.integer_lists import read_integers


@pytest.mark.parametrize("block", [16, 1 << 18])
@pytest.mark.parametrize("style", ["plain", "tabs", "windows", "open end", "padded", "empty lines"])
def test_equals_splitting_lines(tmp_path, monkeypatch, block, style):
    monkeypatch.setattr(integer_lists, "_BLOCK", block)
    rng = np.random.default_rng(0)
    rows = [tuple(int(v) for v in rng.integers(0, 10 ** rng.integers(1, 9), 3)) for _ in range(300)]
    separator, end = {
        "tabs": ("\t", "\n"),
        "windows": (" ", "\r\n"),
        "padded": ("  ", " \n"),
        "empty lines": (" ", "\n\n"),
    }.get(style, (" ", "\n"))
    text = end.join(separator.join(map(str, row)) for row in rows) + ("" if style == "open end" else end)
    path = tmp_path / "list.txt"
    path.write_bytes(text.encode())
    found = read_integers(path, columns=3)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found.T, rows)


@pytest.mark.parametrize("bad", ["1 2", "1 2 3 4", "1 x 3", "1 -2 3", "1 2.5 3", "1 2 99999999999", "1 2\n3 4 5 6"])
def test_a_bad_line_is_named(tmp_path, bad):
    path = tmp_path / "list.txt"
    path.write_text("1 2 3\n\n4 5 6\n" + bad + "\n")
    with pytest.raises(ProtocolError, match=r"line 4: expected 3 whole numbers"):
        read_integers(path, columns=3)


def test_empty_and_missing_lists(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ProtocolError, match="empty list"):
        read_integers(tmp_path / "empty.txt", columns=3)
    with pytest.raises(DataError, match="cannot read"):
        read_integers(tmp_path / "none.txt", columns=3)


def test_the_binary_copy_is_used_and_a_changed_list_is_read_again(tmp_path, monkeypatch):
    path, cache = tmp_path / "list.txt", tmp_path / "cache"
    path.write_text("1 2 3\n4 5 6\n")
    first = read_integers(path, columns=3, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(integer_lists, "_parse", lambda *_: pytest.fail("parsed again"))
        np.testing.assert_array_equal(read_integers(path, columns=3, cache=cache), first)
    path.write_text("7 8 9\n1 1 1\n2 2 2\n")
    assert read_integers(path, columns=3, cache=cache).shape == (3, 3)
    for file in cache.glob("*.npy"):
        file.write_bytes(b"damaged")
    assert read_integers(path, columns=3, cache=cache)[0, 0] == 7
