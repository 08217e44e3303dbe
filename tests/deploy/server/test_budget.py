"""Limits in the unit of the cost: pixels of a request and in flight, bytes in memory, connections, time to ask."""

import asyncio
import threading
import time

import httpx
import numpy as np
import pytest
from starlette.exceptions import HTTPException

from visavis.deploy.server.budget import Budget
from visavis.errors import DataError
from visavis.vision.images import encode


@pytest.fixture
def make(start):
    opened = []

    def build(**settings):
        service = start(**settings)
        client = httpx.Client(base_url=service.url, trust_env=False, timeout=30)
        client.service = service
        opened.append(client)
        return client

    yield build
    for client in opened:
        client.close()


def test_a_budget_is_shared_first_come_first_served():
    async def run():
        budget, order = Budget(10, waiting=3), []

        async def ask(name, amount, seconds):
            async with budget.take(amount):
                order.append(name)
                assert budget.held <= 10
                await asyncio.sleep(seconds)

        tasks = [
            asyncio.create_task(ask(*what)) for what in (("a", 6, 0.05), ("b", 6, 0.01), ("c", 2, 0), ("d", 99, 0))
        ]
        await asyncio.sleep(0.01)
        assert order == ["a"]  # c would fit, but b was there first
        with pytest.raises(HTTPException) as refused:
            await ask("e", 1, 0)
        assert refused.value.status_code == 503
        assert refused.value.headers["Retry-After"]
        await asyncio.gather(*tasks)
        assert order == ["a", "b", "c", "d"]
        assert budget.held == 0

    asyncio.run(run())


def test_whoever_gives_up_waiting_holds_nothing():
    async def run():
        budget = Budget(10, waiting=9)

        async def ask(amount):
            async with budget.take(amount):
                await asyncio.sleep(0.05)

        first, second, third = (asyncio.create_task(ask(n)) for n in (10, 10, 1))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert budget.held == 0
        third = asyncio.create_task(ask(10))
        await asyncio.sleep(0.01)
        third.cancel()  # while it holds
        await asyncio.gather(third, return_exceptions=True)
        assert budget.held == 0

    asyncio.run(run())


def test_the_pixels_of_a_request_are_counted_together(make, draw):
    client = make(max_pixels=200_000)
    image = encode(draw.paint(draw.RED), ".jpg")  # 300 x 300
    assert client.post("/embed", files=[("pictures", image)] * 2).status_code == 200
    answer = client.post("/embed", files=[("pictures", image)] * 3)
    assert answer.status_code == 413
    assert "200,000 pixels together, these have 270,000" in answer.json()["error"]
    many = [("pictures", encode(np.zeros((500, 500, 3), np.uint8), ".jpg"))]
    assert "exceed the limit of 200,000" in client.post("/embed", files=many).json()["error"]


def test_pixels_in_flight_are_bounded_over_all_requests(make, draw, monkeypatch):
    client = make(max_pixels_in_flight=200_000, waiting=100)
    image = encode(draw.paint(draw.RED), ".jpg")
    handlers, at_work, most = client.service.app.state.service.handlers, 0, []
    real, lock = handlers.embed, threading.Lock()

    def watched(*args, **options):
        nonlocal at_work
        with lock:
            at_work += 1
            most.append(at_work)
        time.sleep(0.05)
        with lock:
            at_work -= 1
        return real(*args, **options)

    monkeypatch.setattr(type(handlers), "embed", lambda _, *args, **options: watched(*args, **options))
    codes = []
    url = client.service.url + "/embed"
    threads = [
        threading.Thread(
            target=lambda: codes.append(
                httpx.post(url, files={"pictures": image}, trust_env=False, timeout=30).status_code
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [200] * 8
    assert max(most) == 2


def test_bodies_in_memory_are_bounded_over_all_requests(make, draw, monkeypatch):
    client = make()
    service = client.service.app.state.service
    service._bytes = Budget(3_000_000, waiting=99)
    held = []

    def verify(*_, **__):
        held.append(service._bytes.held)
        time.sleep(0.1)
        raise DataError("enough")

    monkeypatch.setattr(service.handlers, "verify", verify)
    pair = {"reference": draw.jpeg(draw.RED), "probe": draw.jpeg(draw.RED) + bytes(1_500_000)}
    threads = [threading.Thread(target=lambda: client.post("/verify", files=pair)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert client.get("/subjects").status_code == 200  # what holds nothing waits for nobody
    for thread in threads:
        thread.join()
    assert len(held) == 4  # each 1.5 MB and a bit: no two at a time
    assert all(1_500_000 < amount <= 3_000_000 for amount in held), held
    assert service._bytes.held == 0


def test_the_pictures_of_a_request_share_its_time(make, draw, monkeypatch):
    """Those that come too late are named, not dropped; nothing of an /embed is answered."""
    client = make(max_seconds=0.2)
    handlers = client.service.app.state.service.handlers
    real = type(handlers).image

    def slow(self, upload):
        end = time.thread_time() + 0.15
        while time.thread_time() < end:
            pass
        return real(self, upload)

    monkeypatch.setattr(type(handlers), "image", slow)
    files = [("pictures", draw.jpeg(draw.RED, seed=k)) for k in range(4)]
    answer = client.post("/enroll", files=files, data={"name": "Rosa"}).json()
    assert answer["added"] == 2
    assert [r["picture"] for r in answer["refused"]] == ["picture 3", "picture 4"]
    assert "send fewer at a time" in answer["refused"][0]["reason"]
    refused = client.post("/embed", files=files)
    assert refused.status_code == 422
    assert "picture 3: not looked at" in refused.json()["error"]


def test_faces_of_a_request_are_shared_among_its_pictures(make, draw):
    client = make(max_faces=4)
    crowd = draw.jpeg(draw.RED, draw.GREEN, draw.BLUE, size=(120, 400), side=80)
    answer = client.post("/embed", files=[("pictures", crowd)] * 2).json()
    assert [len(faces) for faces in answer["pictures"]] == [2, 2]
    assert answer["notes"] == ["2 smaller faces were not embedded; at most 2 a picture are"]
    assert client.post("/embed", files=[("pictures", crowd)]).json()["notes"] == []
