"""Groups of faces as one picture."""

import numpy as np
import pytest

from visavis.deploy.contact_image import group_sheet, pair_sheet, write_groups, write_pair
from visavis.errors import DataError
from visavis.vision.images import decode, read


def face(value, height=112, width=112):
    return np.full((height, width, 3), value, np.uint8)


def shown(sheet, value):
    return int((sheet == value).all(2).sum())


def test_every_face_of_every_group_is_on_the_sheet():
    sheet = group_sheet([("one", [face(10)] * 14), ("two", [face(20, 112, 96), face(5)]), ("none", [])], columns=12)
    assert shown(sheet, 10) == 14 * 96 * 96  # in two rows
    assert shown(sheet, 20) == 96 * 82
    assert shown(sheet, 5) == 96 * 96
    assert sheet.shape[1] == 12 * (96 + 6) + 24


def test_it_is_written_as_its_name_ends(tmp_path):
    write_groups(tmp_path / "sheet.png", [("one", [face(90)])])
    assert shown(read(tmp_path / "sheet.png"), 90) == 96 * 96
    with pytest.raises(DataError, match=r"\.txt"):
        write_groups(tmp_path / "sheet.txt", [("one", [face(90)])])


def test_the_sheet_shows_both_crops(recognizer, draw, tmp_path):
    result = recognizer.verify(draw.paint(draw.RED), draw.paint(draw.BLUE))
    sheet = pair_sheet(result)
    assert np.abs(sheet[180, 180].astype(int) - draw.RED).max() < 40
    assert np.abs(sheet[180, 530].astype(int) - draw.BLUE).max() < 40
    write_pair(tmp_path / "out.png", result)
    assert decode((tmp_path / "out.png").read_bytes()).shape == sheet.shape
    with pytest.raises(DataError, match="gif"):
        write_pair(tmp_path / "out.gif", result)
