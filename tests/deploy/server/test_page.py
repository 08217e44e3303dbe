"""The page in a real browser: every flow a person takes, and what it says when something is wrong."""

import base64
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium")]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser, start):
    """Open the page of a fresh service; every script error fails the test."""
    contexts, problems = [], []

    def go(*, width=1200, height=900, service=None, scheme="light", token=None, **settings):
        running = service or start(**settings)
        context = browser.new_context(
            viewport={"width": width, "height": height}, base_url=running.url, color_scheme=scheme
        )
        if token:
            context.add_init_script(f"sessionStorage.setItem('visavis-token', {token!r})")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: (
                problems.append(request.url) if not request.url.startswith((running.url, "blob:", "data:")) else None
            ),
        )
        page.goto("/")
        page.wait_for_selector("html[data-ready]")
        page.running = running
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []


def give(page, field, *contents):
    page.set_input_files(
        f"#file-{field}", [{"name": f"{i}.png", "mimeType": "image/png", "buffer": c} for i, c in enumerate(contents)]
    )


def send(page, form, expect):
    page.click(f"#{form}-form [type=submit]")
    page.wait_for_selector(f"#{form}-result {expect}")
    return page.inner_text(f"#{form}-result")


def test_compare_two_pictures(visit, draw):
    page = visit()
    assert page.is_disabled("#compare-form [type=submit]")
    give(page, "reference", draw.jpeg(draw.RED))
    give(page, "probe", draw.jpeg(draw.RED, seed=3))
    said = send(page, "compare", ".verdict")
    assert "The same person" in said
    assert "threshold 0.900" in said
    assert "1 in 1,000" in said
    assert page.locator("#compare canvas").count() == 4  # two crops, two pictures with landmarks
    give(page, "probe", draw.jpeg(draw.BLUE))
    assert "Different people" in send(page, "compare", ".verdict.bad")
    page.click("#compare-form [type=reset]")
    assert page.inner_text("#compare-result") == ""


def test_drop_a_picture_on_a_field(visit, draw):
    page = visit()
    page.evaluate(
        """(bytes) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"}));
        const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
        document.querySelector("[data-name=reference]").dispatchEvent(drop); }""",
        list(draw.jpeg(draw.RED)),
    )
    assert page.locator("[data-name=reference] img").get_attribute("alt") == "First picture: dropped.png"


def test_enroll_find_rename_and_forget(visit, draw):
    page = visit(keep_crops=True)
    page.click("#tab-enroll")
    give(page, "pictures", draw.jpeg(draw.RED), draw.jpeg(draw.RED, seed=1), draw.jpeg())
    page.fill("[name=name]", "Rosa <b>Luxemburg</b>")
    page.fill("[name=consent]", "letter of 3 May")
    said = send(page, "enroll", ".done")
    assert "Rosa <b>Luxemburg</b>: 2 pictures enrolled" in said
    assert "Left out, picture 3: no face found" in said
    page.click("#tab-find")
    give(page, "picture", draw.jpeg(draw.RED, draw.GREEN, size=(220, 420)))
    said = send(page, "find", ".verdict")
    assert "Rosa <b>Luxemburg</b>" in said
    assert "Unknown" in said
    assert "0.1 % (< 0.1 % to 0.2 %) of searches among 1 person" in said
    page.click("#tab-people")
    page.wait_for_selector(".cards img.thumb:not([hidden])")
    assert "letter of 3 May" in page.inner_text("#people-result")
    page.click("text=Rename")
    page.fill(".cards input", "Rosa L.")
    page.keyboard.press("Enter")
    page.wait_for_selector("h3:has-text('Rosa L.')")
    page.fill("[name=query]", "nobody")
    page.wait_for_selector("text=contains “nobody”")
    page.fill("[name=query]", "rosa")
    page.click("[aria-label='Forget Rosa L.']")
    page.click("#forget-dialog >> text=Keep")
    assert page.locator(".cards li").count() == 1
    page.click("[aria-label='Forget Rosa L.']")
    page.click("#forget-dialog >> text=Forget for good")
    page.wait_for_selector("#people-result .done")
    assert "none is left" in page.inner_text("#people-result")
    assert page.inner_text("#people-count") == "(0)"


def test_a_bad_file_and_a_picture_without_a_face_are_explained(visit, draw):
    page = visit()
    give(page, "reference", draw.jpeg(draw.RED))
    give(page, "probe", b"this is no picture")
    assert "second picture: expected a JPEG" in send(page, "compare", "[role=alert]")
    give(page, "probe", draw.jpeg())
    said = send(page, "compare", "[role=alert]:has-text('no face')")
    assert "second picture: no face found" in said
    page.click("#tab-find")
    give(page, "picture", draw.jpeg())
    assert "No face was found" in send(page, "find", ".notice")


def test_the_service_being_gone_is_said(visit, draw):
    page = visit()
    give(page, "reference", draw.jpeg(draw.RED))
    give(page, "probe", draw.jpeg(draw.RED))
    page.running.server.should_exit = True
    page.running.thread.join(20)
    assert "cannot be reached" in send(page, "compare", "[role=alert]")


def test_by_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "tab-compare"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-find"
    assert page.is_visible("#find")
    assert page.is_hidden("#compare")
    page.keyboard.press("End")
    assert page.is_visible("#about")
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "First picture"


def test_every_control_has_a_name_and_every_picture_a_text(visit):
    page = visit()
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, textarea, [role=tabpanel], dialog')].filter((node) =>
        !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.labels?.length
          || node.textContent.trim())).map((node) => node.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))")
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("[aria-live=polite]").count() == 4


def test_a_narrow_screen_does_not_scroll_sideways(visit, draw):
    page = visit(width=340, height=700)
    give(page, "reference", draw.jpeg(draw.RED))
    give(page, "probe", draw.jpeg(draw.RED))
    send(page, "compare", ".verdict")
    for tab in ("compare", "find", "enroll", "people", "about"):
        page.click(f"#tab-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), tab
        assert page.evaluate(f"document.getElementById('tab-{tab}').getBoundingClientRect().right <= innerWidth"), tab


def faults(page):
    """What axe-core finds wrong with the page as it is now."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.wait_for_timeout(100)  # colors fade
    found = axe.Axe().run(page).response["violations"]
    return [(fault["id"], node["html"][:120]) for fault in found for node in fault["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_everybody_can_use_it(visit, draw, width, scheme):
    page = visit(width=width, scheme=scheme, keep_crops=True)

    def looked_at(what):
        assert faults(page) == [], what
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what

    looked_at("empty")
    give(page, "reference", draw.jpeg(draw.RED))
    give(page, "probe", draw.jpeg(draw.RED, seed=3))
    send(page, "compare", ".verdict")
    looked_at("same person")
    labels = page.evaluate(
        """() => { const box = (node) => node.getBoundingClientRect(), bar = box(document.querySelector(".scale"));
        return [...document.querySelectorAll(".scale span")].every((node) =>
          box(node).left >= bar.left - 1 && box(node).right <= bar.right + 1); }"""
    )
    assert labels, "the scale's labels leave it"
    give(page, "probe", b"no picture")
    send(page, "compare", "[role=alert]")
    looked_at("error")
    page.click("#tab-enroll")
    give(page, "pictures", draw.jpeg(draw.RED), draw.jpeg())
    page.fill("[name=name]", "Rosa Luxemburg, née Luxenburg, of Zamość")
    send(page, "enroll", ".done")
    looked_at("enrolled")
    page.click("#tab-find")
    give(page, "picture", draw.jpeg(draw.RED, draw.GREEN, size=(220, 420)))
    send(page, "find", ".verdict")
    looked_at("found")
    page.click("#tab-people")
    page.wait_for_selector(".cards li")
    looked_at("people")
    page.click("text=Rename")
    looked_at("renaming")
    page.keyboard.press("Escape")
    page.click("[aria-label^=Forget]")
    looked_at("asking")
    page.click("#forget-dialog >> text=Keep")
    page.click("#tab-about")
    looked_at("about")
    page.goto("/docs")
    page.wait_for_selector("html[data-ready]")
    page.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    looked_at("API")


def test_a_role_is_offered_what_it_may(visit, draw, start):
    running = start(tokens={c * 24: role for c, role in zip("mrw", ("match", "read", "write"), strict=True)})
    tabs = {}
    for letter in "wrm":
        page = visit(service=running, token=letter * 24)
        tabs[letter] = page.locator("[role=tab]:visible").all_inner_texts()
        if letter == "w":
            page.click("#tab-enroll")
            give(page, "pictures", draw.jpeg(draw.RED))
            page.fill("[name=name]", "Rosa")
            send(page, "enroll", ".done")
        if letter == "r":
            page.click("#tab-people")
            page.wait_for_selector("h3:has-text('Rosa')")
            assert page.locator("[aria-label^=Forget]").count() == 0
    assert tabs["w"] == ["Compare", "Find", "Enroll", "People", "About"]
    assert tabs["r"] == ["Compare", "Find", "People", "About"]
    assert tabs["m"] == ["Compare", "Find", "About"]
    page.click("#tab-find")
    give(page, "picture", draw.jpeg(draw.RED, draw.GREEN, size=(220, 420)))
    said = send(page, "find", ".verdict")
    assert "Person 1" in said
    assert "Unknown" in said
    assert "Rosa" not in said
    page.click("#tab-compare")
    give(page, "reference", draw.jpeg(draw.RED))
    give(page, "probe", draw.jpeg(draw.RED, seed=3))
    assert "The same person" in send(page, "compare", ".verdict")
    page.focus("#tab-find")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-about"


def test_the_camera_takes_a_picture(visit):
    page = visit()
    page.click("[data-name=reference] >> text=Camera")
    page.wait_for_selector("#camera-dialog[open]")
    page.click("text=Take picture")
    page.wait_for_selector("[data-name=reference] img")
    page.wait_for_timeout(100)
    assert page.evaluate("document.querySelector('[data-name=reference] img').naturalWidth") > 100
    assert page.evaluate("document.getElementById('camera-video').srcObject === null")


def test_a_token_is_asked_for_and_a_wrong_one_asked_again(start, browser, draw):
    running = start(tokens={"w" * 24: "write"})
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto("/")
    page.wait_for_selector("#token-dialog[open]")
    page.fill("#token-dialog input", "wrong")
    page.click("text=Use it")
    page.wait_for_selector("#token-dialog[open] >> text=not right")
    page.fill("#token-dialog input", "w" * 24)
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-ready]")
    page.click("#tab-people")
    page.wait_for_selector("text=Nobody is enrolled yet")
    context.close()


def test_the_about_tab_shows_license_and_measurements(visit):
    page = visit()
    page.click("#tab-about")
    said = page.inner_text("#about")
    assert "MIT" in said
    assert "lfw · accuracy" in said
    assert "match from similarity 0.900" in said


def test_an_uncalibrated_model_is_announced(visit, start, recognizer, card):
    recognizer.card = card.with_changes(thresholds={})
    page = visit()
    assert "no calibrated threshold" in page.inner_text("#notice")


def test_the_api_page_lists_every_route(visit):
    page = visit()
    page.goto("/docs")
    page.wait_for_selector("details")
    assert page.locator("details").count() >= 16
    page.goto("/docs#post-subjects-number-merge")
    page.reload()
    page.wait_for_selector("details[open]")
    assert "role write" in page.inner_text("details[open]")
    page.click("text=GET /healthz")
    page.wait_for_selector("#get-healthz[open]")
    assert "Open to everybody" in page.inner_text("#get-healthz")


CAMERA = """
navigator.mediaDevices.getUserMedia = async () => {
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  canvas.width = 640; canvas.height = 300;
  window.shown = "RED";
  setInterval(() => {
    pen.fillStyle = "black"; pen.fillRect(0, 0, 640, 300);
    const image = window.pictures[window.shown];
    if (image) pen.drawImage(image, 0, 0);
  }, 40);
  return canvas.captureStream(25);
};
"""


def test_a_camera_is_watched_and_says_who_was_seen_when(visit, draw, recognizer):
    """Ada, then nobody, then a stranger in another place; the camera is let go of when watching stops."""
    page = visit()
    page.running.gallery.enroll("Ada", recognizer.embed([draw.paint(draw.RED)]))
    page.click("#tab-find")
    images = {name: draw.jpeg(getattr(draw, name)) for name in ("RED", "BLUE")}
    urls = {k: "data:image/png;base64," + base64.b64encode(v).decode() for k, v in images.items()}
    page.evaluate(
        "async urls => { window.pictures = {}; for (const k in urls) { const i = new Image(); i.src = urls[k];"
        " await i.decode(); window.pictures[k] = i } }",
        urls,
    )
    page.evaluate(CAMERA)
    page.click("#live button")
    seen = page.locator("#live li")
    seen.filter(has_text="Ada, ").wait_for()
    assert page.locator("#live img").first.get_attribute("src").startswith("data:image/")
    page.evaluate("window.shown = 'nobody'")
    page.wait_for_timeout(2500)
    page.evaluate("window.shown = 'BLUE'")
    seen.filter(has_text="Unknown, ").wait_for()
    assert seen.count() == 2
    assert "frames looked at" in page.locator("#live [role=status]").text_content()
    page.click("#live button")
    assert page.evaluate("document.querySelector('#live video').srcObject === null")
    assert page.locator("#live .live-view").is_hidden()
