"""A run writes its log and leaves the package's logger as it was."""

import logging

import pytest

from visavis.errors import DataError
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


class Full:
    def write(self, text):
        raise OSError(28, "No space left on device")

    def close(self):
        raise OSError(28, "No space left on device")


def test_a_full_disk_costs_a_line_and_not_the_run(tmp_path, caplog):
    with RunLogger(tmp_path) as book:
        book.write({"step": 1})
        book._file.close()
        book._file = Full()
        book.write({"step": 2})
        book.write({"step": 3})
    assert caplog.text.count("metrics.jsonl cannot be written (No space left on device)") == 1
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(DataError, match="cannot write into the run folder"):
        RunLogger(tmp_path)
