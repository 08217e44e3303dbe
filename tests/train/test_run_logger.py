"""A run writes its log and leaves the package's logger as it was."""

import logging

import pytest

from visavis.train.run_logger import LOG, RunLogger, read_metrics


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR])
def test_the_level_is_the_callers_again_at_the_end(tmp_path, silent, level):
    package = logging.getLogger("visavis")
    former = package.level
    package.setLevel(level)
    try:
        with RunLogger(tmp_path, silent=silent) as book:
            logging.getLogger("visavis.train.loop").info("one line")
            book.write({"step": 1})
        assert package.level == level
        assert not [h for h in package.handlers if isinstance(h, logging.FileHandler)]
    finally:
        package.setLevel(former)
    if not silent:
        assert "one line" in (tmp_path / LOG).read_text()
        assert read_metrics(tmp_path) == [{"step": 1}]
