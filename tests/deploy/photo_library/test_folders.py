"""The page of a photo library in a real browser, opened as a file: merge, split, name, take out, save."""

import json
import shutil

import pytest
from deployment import BLUE, GREEN, RED
from tests.deploy.photo_library.test_library import jpeg

from visavis.deploy.photo_library.library import run_library

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]


def test_what_is_said_on_the_page_is_what_the_next_run_does(recognizer, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name, color, count in (("red", RED, 4), ("green", GREEN, 3), ("blue", BLUE, 1)):
        for i in range(count):
            (photos / f"{name} <{i}>.png").write_bytes(jpeg(color, seed=10 * count + i))

    def run():
        return run_library(recognizer, photos, sorted(map(str, photos.iterdir())), out, threshold=0.9)

    run()
    problems = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto((out / "index.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        cards = page.locator("article")
        assert cards.count() == 3
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth == 112)")
        cards.nth(0).locator(".faces button").nth(0).click()  # one red face is somebody else
        page.click("#one")
        page.get_by_label("name").nth(0).fill("Ada <b>")
        page.get_by_label("name").nth(0).blur()
        page.click("#undo")
        page.get_by_label("name").nth(0).fill("Ada")
        page.get_by_label("name").nth(0).blur()
        page.locator("[data-person='2'] input[type=checkbox]").check()  # green and the blue one are one
        page.locator("[data-person='0'] .faces button").click()
        page.click("#one")
        page.locator("[data-person='2'] .faces button").nth(1).click()
        page.click("#nobody")
        with page.expect_download() as saved:
            page.click("#save")
        saved.value.save_as(out / "corrections.json")
        browser.close()
    assert problems == []
    told = json.loads((out / "corrections.json").read_text())
    assert [(entry["person"], entry["name"], len(entry["faces"])) for entry in told["people"]] == [
        (1, "Ada", 3), (2, None, 3), (None, None, 1),
    ]  # fmt: skip
    run()
    names = {
        folder.name: sorted(p.name.split(" ")[0] for p in folder.iterdir()) for folder in (out / "people").iterdir()
    }
    assert names.pop("Ada") == ["red"] * 3
    assert names.pop("person-2") == ["blue", "green", "green"]
    assert list(names.values()) == [["red"]]
