"""Drawing classes."""

import pytest
import torch

from visavis.losses.partial_fc.sampling import draw_classes, keep_positives, step_generator


@pytest.mark.parametrize(("classes", "count"), [(1, 1), (10, 10), (10, 7), (1000, 10), (37, 30)])
def test_drawn_classes_are_different_and_as_many_as_asked(classes, count):
    for step in range(20):
        drawn = draw_classes(classes, count, step_generator(1, "classes", step))
        assert len(drawn) == len(set(drawn.tolist())) == count
        assert 0 <= drawn.min() <= drawn.max() < classes


def test_every_class_is_drawn_equally_often():
    draws = 6000
    for classes, count in ((23, 7), (23, 18)):
        counts = torch.zeros(classes)
        for step in range(draws):
            counts[draw_classes(classes, count, step_generator(0, "classes", step))] += 1
        rate = count / classes
        spread = (draws * rate * (1 - rate)) ** 0.5
        assert ((counts - draws * rate).abs() / spread).max() < 4.5


def test_all_positives_are_kept():
    drawn, labels = torch.tensor([2, 9, 14]), torch.tensor([3, 9, 3, 17])
    assert keep_positives(drawn, labels, 0, 20).tolist() == [2, 3, 9, 14, 17]
    assert keep_positives(drawn, labels, 10, 20).tolist() == [4, 7]
