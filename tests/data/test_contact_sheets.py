"""Contact sheets and their captions."""

from visavis.data.contact_sheets import caption_lines, contact_sheet


def test_captions_keep_what_tells_pictures_apart():
    assert caption_lines("Ann_Lee/Ann_Lee_0001.jpg", 21) == ("Ann_Lee", "0001.jpg")
    long = caption_lines("Prince_Willem-Alexander_of_Orange/clip/frame_0000017.jpg", 21)
    assert all(len(line) <= 21 for line in long)
    assert long[1].endswith("17.jpg")
    assert caption_lines("own 0.31 Ann", 21) == ("own 0.31 Ann", "")
    assert contact_sheet([None] * 3, ["a"] * 3, columns=4, side=64, group=2).shape == (88, 4 * 64 + 14, 3)
