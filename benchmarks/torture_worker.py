"""A client of the tortured gallery: threads of a library, the command line, or a service with its own callers.

Started by gallery_torture.py and killed by it at any moment; everything it was told is in its ledgers.
"""

from __future__ import annotations

import contextlib
import io
import random
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torture_ledger import DIM, MODEL, Ledger, face

from visavis.cli import main as visavis
from visavis.deploy.client import Client, ServiceError
from visavis.deploy.gallery.opening import open_gallery
from visavis.deploy.gallery.records import StorageError
from visavis.errors import DataError
from visavis.vision.images import encode

UNDECIDED = "cannot be told"


class Caller:
    """One thread's subjects, and what it does with them next."""

    def __init__(self, tag: str, number: int, ledger: Ledger, act: Callable[..., Any]) -> None:
        self._tag, self._ledger, self._act = tag, ledger, act
        self._rng = random.Random(f"{tag} {number}")
        self._next = number * 1_000_000
        self._living: dict[str, list[int]] = {}

    def step(self) -> None:
        """One operation: told to the ledger, done, and its answer told."""
        kind = self._rng.choices(["enroll", "add", "identify", "rename", "merge", "forget"], [30, 20, 25, 8, 5, 12])[0]
        if len(self._living) < 3:
            kind = "enroll"
        operation = self._operation(kind)
        self._ledger.write("begin", **operation)
        try:
            answer = self._act(operation)
        except (DataError, ServiceError) as error:
            # An error that does not say so claims that nothing was kept.
            lost = UNDECIDED in str(error) or "cannot reach" in str(error)
            self._ledger.write("undecided" if lost else "refused", why=str(error)[:200])
            if lost:
                for key in ("name", "other"):
                    self._living.pop(operation.get(key, ""), None)
            return
        self._note(operation)
        self._ledger.write("done", complete=bool(answer) if kind == "forget" else None)
        if kind == "identify" and answer != operation["name"]:
            self._ledger.write("wrong", what=f"{operation} answered by {answer}")

    def _operation(self, kind: str) -> dict[str, Any]:
        if kind == "enroll":
            count = self._rng.choice([1, 1, 2])
            return {"kind": kind, "name": self._name(), "faces": [self._number() for _ in range(count)]}
        name = self._rng.choice(list(self._living))
        operation: dict[str, Any] = {"kind": kind, "name": name}
        if kind == "add":
            operation["faces"] = [self._number()]
        elif kind == "rename":
            operation["other"] = self._name()
        elif kind == "merge":
            operation["other"] = self._rng.choice([other for other in self._living if other != name])
        elif kind == "identify":
            operation["faces"] = self._living[name]
        return operation

    def _note(self, operation: dict[str, Any]) -> None:
        kind, name = operation["kind"], operation["name"]
        if kind in ("enroll", "add"):
            self._living.setdefault(name, []).extend(operation["faces"])
        elif kind == "rename":
            self._living[operation["other"]] = self._living.pop(name)
        elif kind == "merge":
            self._living[name] += self._living.pop(operation["other"])
        elif kind == "forget":
            del self._living[name]

    def _name(self) -> str:
        return f"{self._tag} subject {self._number():012d}"

    def _number(self) -> int:
        self._next += 1
        return self._next


def library(gallery: Any) -> Callable[..., Any]:
    """Operations by the library."""

    def act(operation: dict[str, Any]) -> Any:
        kind, name = operation["kind"], operation["name"]
        if kind in ("enroll", "add"):
            return gallery.enroll(name, np.stack([face(n) for n in operation["faces"]]), crops=None)
        if kind == "rename":
            return gallery.update(name, name=operation["other"])
        if kind == "merge":
            return gallery.merge(name, operation["other"])
        if kind == "forget":
            return gallery.forget(name).complete
        probe = np.sum([face(n) for n in operation["faces"]], axis=0)
        found = gallery.search(probe, top=1)[0]
        return found[0].name if found else None

    return act


def command_line(address: str) -> Callable[..., Any]:
    """Operations by `visavis gallery` and `visavis forget`, which open the gallery anew each time."""

    def act(operation: dict[str, Any]) -> Any:
        kind, name = operation["kind"], operation["name"]
        if kind in ("enroll", "add", "identify"):
            with open_gallery(address, MODEL) as gallery:
                return library(gallery)(operation)
        words = {
            "rename": ["gallery", address, "rename", name, operation.get("other", "")],
            "merge": ["gallery", address, "merge", name, operation.get("other", "")],
            "forget": ["forget", address, name],
        }[kind]
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = visavis(words)
        if status == 2:
            raise DataError(said.getvalue())
        return status == 0

    return act


class NumberEmbedder:
    """Gives a picture the embedding whose number its first pixels hold."""

    dim = DIM

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """The embeddings (N, DIM) of crops."""
        return np.stack([face(int.from_bytes(crop.reshape(-1)[:9].tobytes(), "big")) for crop in crops])


def image(number: int) -> bytes:
    """A crop that `NumberEmbedder` reads."""
    pixels = np.random.default_rng(number).integers(0, 256, (112, 112, 3), np.uint8)
    pixels.reshape(-1)[:9] = np.frombuffer(number.to_bytes(9, "big"), np.uint8)
    return encode(pixels, ".png")


def service(gallery: Any) -> Callable[..., Any]:
    """Operations by HTTP, on a service of this process."""
    import uvicorn

    from visavis.deploy.recognizer import Recognizer
    from visavis.deploy.server.app import create_app
    from visavis.deploy.server.listener import server_config
    from visavis.deploy.server.settings import ServiceSettings
    from visavis.vision.preprocessing import PreprocessSpec

    recognizer = Recognizer(NumberEmbedder(), spec=PreprocessSpec())
    app = create_app(recognizer, gallery, ServiceSettings(rate=0.0, sweep_seconds=1.0))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(server_config(app))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    own = threading.local()

    def act(operation: dict[str, Any]) -> Any:
        if not hasattr(own, "client"):
            own.client = Client(url, timeout=120)
        client, kind, name = own.client, operation["kind"], operation["name"]
        if kind in ("enroll", "add"):
            done = client.enroll(name, [image(n) for n in operation["faces"]], aligned=True)
            if done["added"] != len(operation["faces"]):
                raise DataError(f"enrolled {done['added']} of {len(operation['faces'])}: {done}")
            return done
        if kind == "forget":
            return client.forget(name)["complete"]
        if kind == "identify":
            return library(gallery)(operation)  # the mean of several faces is no picture
        number = client.subjects(name)["subjects"][0]["id"]
        if kind == "rename":
            return client.update(number, name=operation["other"])
        return client._ask("POST", f"/subjects/{number}/merge", json={"names": [operation["other"]]})

    return act


def patiently(address: str) -> Any:
    """The gallery, when its server has come back."""
    give_up = time.monotonic() + 60
    while True:
        try:
            return open_gallery(address, MODEL)
        except StorageError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)


def main() -> None:
    """torture_worker.py ADDRESS FOLDER TAG KIND THREADS FIRST-NUMBER."""
    address, folder, tag, kind, threads, number = sys.argv[1:]
    gallery = None if kind == "command line" else patiently(address)
    act = command_line(address) if gallery is None else service(gallery) if kind == "service" else library(gallery)

    def work(i: int) -> None:
        ledger = Ledger(Path(folder) / f"{tag}-{i}.ledger")
        caller = Caller(f"{tag}-{i}", int(number) + i, ledger, act)
        while True:
            caller.step()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(int(threads))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
