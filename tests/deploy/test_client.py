"""A loaded recognizer goes to another process by its path; a client takes the pictures a recognizer takes."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from visavis.deploy.client import Client
from visavis.errors import DataError
from visavis.vision.images import encode


def test_a_client_takes_what_a_recognizer_takes(start, recognizer, draw, tmp_path):
    pixels = draw.paint(draw.RED)
    png = encode(pixels, ".png")
    (tmp_path / "red.png").write_bytes(png)
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    turned = Image.fromarray(np.rot90(pixels).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    stored = io.BytesIO()
    turned.save(stored, "PNG", exif=exif)
    kinds = {
        "path": tmp_path / "red.png",
        "text": str(tmp_path / "red.png"),
        "bytes": png,
        "view": memoryview(png),
        "data URL": "data:image/png;base64," + base64.b64encode(png).decode(),
        "array": pixels,
        "alpha": alpha,
        "floats": pixels.astype(np.float32) / 255,
        "16 bits": pixels.astype(np.uint16) * 257,
        "PIL": Image.fromarray(pixels),
        "PIL, turned": Image.open(io.BytesIO(stored.getvalue())),
    }
    expected = recognizer.get(pixels)[0]
    with Client(start().url) as client:
        client.enroll("Rosa", list(kinds.values()))
        for kind, image in kinds.items():
            face = client.identify(image)["faces"][0]
            assert face["candidates"][0]["name"] == "Rosa", kind
            np.testing.assert_allclose(face["face"]["box"], expected.box, atol=0.5, err_msg=kind)
        with (tmp_path / "red.png").open("rb") as file:
            assert client.verify(file, pixels)["similarity"] > 0.999
        with (tmp_path / "red.png").open("r", encoding="latin-1") as file, pytest.raises(DataError, match="mode 'rb'"):
            client.identify(file)
        for wrong, said in (("data:image/png;base64,???", "damaged"), (np.zeros((2, 2, 7)), "expected an array")):
            with pytest.raises(DataError, match=said):
                client.identify(wrong)
        with pytest.raises(DataError, match=r"nowhere\.jpg"):
            client.identify("nowhere.jpg")
