"""What no answer says."""

import pytest


@pytest.mark.parametrize("shown", ["people.db", "{folder}/people.db"])
def test_no_answer_says_where_the_gallery_lies(tmp_path, monkeypatch, shown):
    from visavis.deploy.server.app import _without_path

    monkeypatch.chdir(tmp_path)
    assert _without_path(f"{shown.format(folder=tmp_path)}: the gallery was replaced", "people.db") == (
        "the gallery was replaced"
    )
