"""A JPEG's own header, read before any decoder: scans, films behind it, no frame."""

import numpy as np
import pytest
from jpegs import jpeg, smooth
from PIL import Image

from visavis.errors import DataError
from visavis.vision import images
from visavis.vision.jpeg_markers import MAX_SCANNED, read_jpeg_header


def test_the_limit_of_scans_is_in_pixels_passed_over(hostile):
    """11 scans of 40 megapixels pass, and of one picture exactly as many as fit."""
    fits = MAX_SCANNED // (1000 * 1000)
    data = hostile.repeated_scans(fits - 10, 1000, 1000)
    header = read_jpeg_header(data)
    assert header.progressive
    assert header.scans == fits
    with pytest.raises(DataError, match=r"1000×1000 pixels in 1001 scans or more"):
        read_jpeg_header(hostile.repeated_scans(fits - 9, 1000, 1000))


def test_a_jpeg_with_a_film_behind_it_is_whole():
    """Phones append films; markers inside them are none of the picture's."""
    still = jpeg(smooth(64, 64))
    film = b"\xff\xda\xff\xd9" * 10_000 + bytes(100)
    header = read_jpeg_header(still + film)
    assert header.whole
    assert header.scans == 1
    assert np.array_equal(images.decode(still + film), images.decode(still))


def test_a_jpeg_without_a_frame_is_not_given_to_a_decoder_that_reads_its_tags(hostile):
    data = hostile.exif_jpeg()
    at = data.find(b"\xff\xc0")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    with pytest.raises(DataError, match="without a frame"):
        images.decode(data[:at] + data[end:])


def test_nothing_of_a_jpeg_but_its_pixels_reaches_the_decoder():
    tags = Image.Exif()
    tags[0x0112] = 3
    data = jpeg(smooth(40, 64), exif=tags, comment=b"hello", icc_profile=bytes(5000))
    header = read_jpeg_header(data)
    assert (header.height, header.width, header.components, header.orientation) == (40, 64, 3, 3)
    assert len(header.plain) < len(data) - 5000
    assert b"hello" not in header.plain
