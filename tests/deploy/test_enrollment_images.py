"""Enrolling from images of several faces: what is left out and what is doubtful."""

from visavis.deploy.enrollment import enroll_images
from visavis.vision.images import decode


def test_enrolling_lists_what_it_left_out_and_what_is_doubtful(recognizer, gallery, draw):
    images = [
        draw.paint(draw.RED),
        b"junk",
        draw.paint(),
        draw.paint(draw.RED, draw.BLUE, size=(220, 420)),
        draw.paint(draw.RED),
    ]
    done = enroll_images(recognizer, gallery, "Rosa", images, names=[f"p{i}" for i in range(5)], keep_crops=True)
    assert (done.enrollment.added, done.enrollment.already) == (1, 1)
    assert [name for name, _ in done.refused] == ["p1", "p2", "p3"]
    assert "expected a JPEG" in done.refused[0][1]
    assert done.refused[1][1] == "no face found"
    assert "which of them is meant" in done.refused[2][1]
    assert decode(gallery.crop("Rosa")).shape == (112, 112, 3)
    again = enroll_images(recognizer, gallery, "Pia", [draw.paint(draw.PINK)], threshold=0.9)
    assert [c.name for c in again.resembles] == ["Rosa"]
    nobody = enroll_images(recognizer, gallery, "Nil", [draw.paint()])
    assert nobody.enrollment is None
    assert len(gallery) == 2


def test_a_small_face_in_the_background_does_not_hinder_enrolling(recognizer, gallery, draw):
    image = draw.paint(draw.RED, size=(300, 400))
    image[250:280, 350:380] = draw.BLUE
    done = enroll_images(recognizer, gallery, "Rosa", [image])
    assert done.enrollment.added == 1
    assert "several faces: 2" in done.doubts[0][1]
    assert enroll_images(recognizer, gallery, "Rosa", [image], strict=True).enrollment is None
