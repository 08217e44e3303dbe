"""Crops of several requests in one batch."""

import threading
import time

import numpy as np
import pytest

from visavis.deploy.server.batching import BatchingEmbedder
from visavis.errors import DataError


def test_concurrent_crops_run_together_and_go_back_to_their_callers():
    gate, sizes = threading.Event(), []

    class Slow:
        dim = 1

        def embed(self, crops):
            gate.wait(10)
            sizes.append(len(crops))
            return crops[:, 0, 0, :1].astype(np.float32)

    batching = BatchingEmbedder(Slow(), batch_size=8)
    answers = {}

    def ask(i):
        answers[i] = batching.embed(np.full((1 + i % 2, 2, 2, 3), i, np.uint8))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    gate.set()
    for thread in threads:
        thread.join()
    batching.close()
    assert all((answers[i] == i).all() and len(answers[i]) == 1 + i % 2 for i in range(12))
    assert sum(sizes) == 18
    assert len(sizes) < 12
    assert max(sizes) <= 9
    with pytest.raises(DataError, match="shutting down"):
        batching.embed(np.zeros((1, 2, 2, 3), np.uint8))


def test_a_failing_batch_fails_its_callers_and_no_one_else():
    class Picky:
        dim = 1

        def embed(self, crops):
            if crops.max() > 100:
                raise DataError("too bright")
            return np.ones((len(crops), 1), np.float32)

    batching = BatchingEmbedder(Picky())
    with pytest.raises(DataError, match="too bright"):
        batching.embed(np.full((1, 2, 2, 3), 200, np.uint8))
    assert batching.embed(np.zeros((1, 2, 2, 3), np.uint8)).shape == (1, 1)
    batching.close()
