"""The page of a validation."""

from visavis.data.sources import open_source
from visavis.data.validate.page import class_histogram, to_html
from visavis.data.validate.validation import validate
from visavis.vision import images


def test_the_histogram_is_a_picture(messy):
    assert images.decode(class_histogram(open_source(messy))).shape[2] == 3
    assert "Nothing wrong" in to_html(validate(open_source(messy).only(["P8"])))


def test_problems_and_notes_stand_on_the_page(messy):
    found = validate(open_source(messy))
    page = to_html(found)
    assert found.problems()
    assert "1 identities with a single picture" in found.notes()
    for line in (*found.problems(), *found.notes()):
        assert f"<li>{line}</li>" in page
