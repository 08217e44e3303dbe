"""The page of a validation."""

from visavis.data.sources import open_source
from visavis.data.validate.page import class_histogram, to_html
from visavis.data.validate.validation import validate
from visavis.vision import images


def test_the_histogram_is_a_picture(messy):
    assert images.decode(class_histogram(open_source(messy))).shape[2] == 3
    assert "Nothing wrong" in to_html(validate(open_source(messy).only(["P8"])))
