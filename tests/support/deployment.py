"""A recognizer without a network: colors are people, so that every answer is known beforehand."""

import json
import socket
import sqlite3
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

try:
    import psycopg
except ImportError:  # the lowest versions are tested without it
    psycopg = None

from visavis.deploy.gallery.opening import open_gallery
from visavis.deploy.gallery.postgres_address import split_schema
from visavis.deploy.gallery.postgres_pool import FORMAT
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.models.card import LicenseTerms, ModelCard
from visavis.types import Faces
from visavis.vision.images import encode
from visavis.vision.preprocessing import PreprocessSpec

SPEC = PreprocessSpec()
THRESHOLDS = {
    "1e-3": {"threshold": 0.9, "interval": [0.88, 0.92], "comparisons": 3000, "slope": 40.0, "intercept": -36.0},
    "1e-2": {"threshold": 0.8},
}


class ColorEmbedder:
    """Embeds a crop as its mean color and a constant, of length 1."""

    dim = 4

    def __init__(self):
        self.sizes = []

    def embed(self, crops):
        self.sizes.append(len(crops))
        rows = np.concatenate([crops.mean((1, 2)) - 127.5, np.full((len(crops), 1), 5.0)], 1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class BoxDetector:
    """Finds what `paint` has drawn: squares on a black ground, each a face with the template's landmarks."""

    def detect(self, image):
        gray = (image.max(2) > 24).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(cv2.erode(gray, np.ones((3, 3))))
        boxes = [s[:4] for s in stats[1:count] if s[2] > 5]
        n = len(boxes)
        corners = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32).reshape(n, 4)
        unit = np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]])
        sides = (corners[:, 2:] - corners[:, :2])[:, None]
        return Faces(corners, np.full(n, 0.9, np.float32), (corners[:, None, :2] + unit * sides).astype(np.float32))


def paint(*people, size=(300, 300), side=160, seed=0):
    """A picture with one noisy square per color, side by side; a black picture without any.

    Every seed shades the colors a little, so that pictures of one person are not one picture.
    """
    canvas = np.zeros((*size, 3), np.uint8)
    rng = np.random.default_rng(seed)
    shade = np.random.default_rng([seed, 1]).uniform(-8, 8, 3) if seed else 0
    for i, color in enumerate(people):
        left = 20 + i * (side + 20)
        noise = rng.integers(-24, 25, (side, side, 3))
        canvas[20 : 20 + side, left : left + side] = np.clip(np.array(color) + shade + noise, 26, 255)
    return canvas


def jpeg(*people, **options):
    return encode(paint(*people, **options), ".png")


RED, GREEN, BLUE, PINK = (200, 60, 60), (60, 200, 60), (60, 60, 200), (215, 70, 90)


@pytest.fixture
def card():
    return ModelCard(
        "colors", "fake", 4, SPEC, weights_digest="c" * 64, license=LicenseTerms(weights="MIT"), training_data="none",
        intended_use="tests", thresholds=json.loads(json.dumps(THRESHOLDS)), evaluations={"lfw": {"accuracy": 0.98}},
    )  # fmt: skip


@pytest.fixture
def recognizer(card):
    return Recognizer(ColorEmbedder(), spec=SPEC, card=card, detector=BoxDetector())


@pytest.fixture
def gallery(tmp_path, recognizer):
    with Gallery(tmp_path / "people.db", recognizer.identity, create=True) as made:
        yield made


@dataclass(frozen=True)
class Place:
    """Where a gallery is or shall be: a file, or a schema of PostgreSQL."""

    kind: str
    address: str
    server: Any = None

    def open(self, model=None, **options):
        """The gallery there; see `open_gallery`."""
        return open_gallery(self.address, model, **options)

    def raw(self):
        """Every byte that is kept there; of a server the tables' files, not its log."""
        if self.kind == "file":
            return b"".join(file.read_bytes() for file in Path(self.address).parent.iterdir())
        with self.connection() as db:
            db.execute("CHECKPOINT")
        return self.server.table_bytes()

    @contextmanager
    def connection(self):
        """A connection that is not visavis's, allowed to write."""
        if self.kind == "file":
            db = sqlite3.connect(self.address, isolation_level=None)
        else:
            address, schema = split_schema(self.address)
            db = psycopg.connect(address, autocommit=True)
            db.execute(f"SET search_path TO {schema}, public")
            db.execute(f"SET visavis.format = '{FORMAT}'")
        try:
            yield db
        finally:
            db.close()

    @contextmanager
    def reader(self):
        """Somebody who reads, and still sees what was there."""
        with self.connection() as db:
            db.execute("BEGIN" if self.kind == "file" else "BEGIN ISOLATION LEVEL REPEATABLE READ")
            db.execute("SELECT count(*) FROM samples").fetchone()
            yield db

    @property
    def programs(self):
        """The folder of PostgreSQL's programs, or nothing of use."""
        return self.server.programs if self.server else Path(self.address).parent

    @contextmanager
    def restored(self, copy):
        """The gallery in a backup, brought back elsewhere."""
        if self.kind == "file":
            with open_gallery(copy) as gallery:
                yield gallery
            return
        address, schema = split_schema(self.address)
        elsewhere = address.replace("/postgres?", "/restored?")
        with psycopg.connect(address, autocommit=True) as admin:
            admin.execute("CREATE DATABASE restored")
        with psycopg.connect(elsewhere) as fresh:
            fresh.execute("CREATE EXTENSION vector")
        dump = self.server.root / "copy"
        dump.write_bytes(copy.read_bytes())
        self.server.run("pg_restore", "--exit-on-error", f"--dbname={elsewhere}", str(dump))
        with open_gallery(f"{elsewhere}&schema={schema}") as gallery:
            yield gallery
        with psycopg.connect(address, autocommit=True) as admin:
            admin.execute("DROP DATABASE restored WITH (FORCE)")


@pytest.fixture(params=["file", "postgres"])
def place(request, tmp_path):
    """A fresh place for a gallery, of both kinds: what holds for one holds for the other."""
    if request.param == "file":
        folder = tmp_path / "place"
        folder.mkdir()
        yield Place("file", str(folder / "people.db"))
        return
    server, schema = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
    yield Place("postgres", f"{server.dsn}&schema={schema}", server)


@pytest.fixture
def kept_bytes(request):
    """Gives every byte that a gallery's file, or the tables of its server, hold."""

    def read(gallery):
        if isinstance(gallery, Gallery):
            return b"".join(path.read_bytes() for path in gallery.store.files())
        server = request.getfixturevalue("postgres")
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute("CHECKPOINT")
        return server.table_bytes()

    return read


@pytest.fixture
def schema(postgres):
    """The name of a schema nobody has; removed afterwards, so that nothing of it is among the next test's bytes."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture(scope="session")
def draw():
    """What draws pictures, and the people in them."""
    return SimpleNamespace(paint=paint, jpeg=jpeg, RED=RED, GREEN=GREEN, BLUE=BLUE, PINK=PINK)


@pytest.fixture
def start(recognizer, tmp_path):
    """Real services on this machine's own address, with settings of one's choice; stopped at the end."""
    running = []

    def build(gallery=None, **settings):
        import uvicorn

        from visavis.deploy.server.app import create_app
        from visavis.deploy.server.listener import server_config
        from visavis.deploy.server.settings import ServiceSettings

        if gallery is None:
            gallery = Gallery(tmp_path / "service.db", recognizer.identity, create=True)
        chosen = ServiceSettings(**settings)
        app = create_app(recognizer, gallery, chosen)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(server_config(app, max_connections=chosen.max_connections))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        running.append((server, thread, listener))
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return SimpleNamespace(url=url, app=app, gallery=gallery, server=server, thread=thread)

    yield build
    for server, thread, listener in running:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture
def connect(start):
    """Start services, each with a client that knows its service; all are closed in the end."""
    clients = []

    def build(**settings):
        service = start(**settings)
        client = httpx.Client(base_url=service.url, trust_env=False, timeout=60)
        client.service = service
        clients.append(client)
        return client

    yield build
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An exported model whose embedding is the mean color: uint8 N×H×W×3 -> float (N, 3)."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Sub", ["mean", "gray"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colors",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 112, 112, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("gray", TensorProto.FLOAT, [3], [127.5] * 3)],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    built.ir_version = 8
    card = {
        "format": 2, "name": "colors", "backbone": "fake", "embedding_dim": 3, "weights_digest": "e" * 64,
        "preprocess": PreprocessSpec().to_dict(),
        "thresholds": {"1e-3": {"threshold": 0.9}},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("model")
    for name, thresholds in (("model.onnx", card["thresholds"]), ("plain.onnx", {})):
        del built.metadata_props[:]
        helper.set_model_props(built, {"visavis.card": json.dumps(card | {"thresholds": thresholds})})
        onnx.save(built, folder / name)
    return folder / "model.onnx"


COLORS = {"Rosa": (220, 40, 40), "Blau": (40, 40, 220), "Grün": (40, 220, 40)}


@pytest.fixture
def people(tmp_path):
    """A folder per subject with aligned crops."""
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        (tmp_path / "people" / name).mkdir(parents=True)
        for i in range(2):
            shade = rng.uniform(-8, 8, 3)  # or the two were one picture
            crop = np.clip(np.array(color) + shade + rng.integers(-20, 20, (112, 112, 3)), 0, 255).astype(np.uint8)
            (tmp_path / "people" / name / f"{i}.png").write_bytes(encode(crop, ".png"))
    return tmp_path / "people"
