"""Bytes looked for in files."""

import os
import threading

from visavis.deploy.gallery.erasure import search_files


def test_a_file_that_is_shortened_while_it_is_searched_only_ends_early(tmp_path):
    path, stop = tmp_path / "log", threading.Event()
    path.write_bytes(os.urandom(1 << 22) + b"a piece of somebody erased")

    def shorten():
        while not stop.is_set():
            os.truncate(path, 0)
            os.truncate(path, 1 << 26)

    thread = threading.Thread(target=shorten)
    thread.start()
    try:
        searches = [search_files([path], [b"a piece of somebody erased"]) for _ in range(10)]
    finally:
        stop.set()
        thread.join()
    assert [search.problem for search in searches] == [""] * 10
    assert all(search.files == ("log",) for search in searches)


def test_a_piece_across_two_blocks_is_found(tmp_path):
    path, piece = tmp_path / "file", bytes(range(24))
    path.write_bytes(bytes((1 << 23) - 11) + piece + bytes(100))
    search = search_files([path, tmp_path / "absent"], [bytes(range(1, 25)), piece])
    assert search.found == (piece,)
    assert search.size == path.stat().st_size
    assert search.identities == ((path.stat().st_dev, path.stat().st_ino),)
