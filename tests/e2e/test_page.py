"""`limner serve --page` in Chromium: what people do there, and that it asks nobody but the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

import chromium
import nasty_videos
import served
from patience import SECONDS, until

KEY = "SECRETXK7Q9F2VN3"
TOO_LARGE = "status of 413"
"""What Chromium says by itself of a file that the server refuses."""
MODELS = ("world:video_captioner", "world:captioner")
"""The one that is compared with, and the served one."""

pytestmark = chromium.MARKS
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Process]:
    options = (
        "body_bytes=200000",
        "images=3",
        "seconds=3600",
        "--key-env",
        "PAGE_KEY",
        "--page",
        "--compare",
        MODELS[0],
    )
    process = served.Process(tmp_path_factory.mktemp("page"), *options, environment={"PAGE_KEY": KEY})
    with process:
        yield process


@pytest.fixture(scope="module")
def browser(service: served.Process) -> Iterator[Browser]:
    with chromium.running() as browser:
        yield browser
        # A page that is open must not keep the server from ending; a request may take an hour.
        chromium.opened(browser).new_page().goto(f"{service.url}/page/")
        service.terminate()
        service.process.wait(SECONDS)


@pytest.fixture(scope="module")
def context(browser: Browser, service: served.Process) -> Iterator[BrowserContext]:
    """A browser whose user has given the key."""
    context = chromium.opened(browser)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=service.url)
    page = context.new_page()
    page.goto(f"{service.url}/")
    for key in ("wrong", KEY):
        page.get_by_label("username").fill("anybody")
        page.get_by_label("password").fill(key)
        page.get_by_role("button", name="Login").click()
        if key != KEY:
            expect(page.get_by_text("Incorrect Credentials")).to_be_visible()
    expect(page.locator("#limner-gallery img").first).to_be_visible()
    page.close()
    yield context
    context.close()


@pytest.fixture
def look(context: BrowserContext, service: served.Process) -> Iterator[Open]:
    """Opens the page; the test fails if it complains, or asks for anything that the server does not give."""
    heard: list[str] = []

    def look(width: int = 1280) -> Page:
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        chromium.hear(page, heard, f"{service.url}/")
        page.goto(f"{service.url}/page/")
        expect(page.locator("#limner-gallery img").first).to_be_visible()
        return page

    yield look
    for page in context.pages:
        page.close()
    assert [said for said in heard if TOO_LARGE not in said] == []


def upload(page: Page, *files: tuple[str, bytes]) -> None:
    page.locator("#limner-files input[type=file]").set_input_files(
        [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    )


def looks(page: Page, count: int = 1) -> Locator:
    found = page.locator(".lm-look")
    expect(found).to_have_count(count)
    return found


def put(page: Page, **values: str) -> None:
    """Type into the numbers beside sliders, again where a control that is still being drawn forgot it."""

    def put() -> bool:
        kept = True
        for name, value in values.items():
            label = name.replace("_", " ")
            if page.get_by_label(f"range slider for {label}").input_value() != value:
                page.get_by_label(f"number input for {label}").fill(value)
                page.wait_for_timeout(200)
                kept = False
        return kept

    until(put)


def content(number: int, folder: Path) -> bytes:
    path = folder / f"{number}.png"
    served.picture(number).save(path)
    return path.read_bytes()


def test_an_uploaded_picture_is_captioned_by_both_as_programs_are_answered(
    look: Open, service: served.Process, tmp_path: Path
) -> None:
    page = look()
    upload(page, ("scene.png", content(3, tmp_path)))
    found = looks(page)
    assert found.locator("h3").all_inner_texts() == list(MODELS)
    captions = found.locator(".lm-caption").all_inner_texts()
    answer = httpx.post(
        f"{service.url}/v1/chat/completions", json=served.body(3, temperature=0), timeout=SECONDS,
        headers={"Authorization": f"Bearer {KEY}"},
    )  # fmt: skip
    assert captions[1] == answer.json()["choices"][0]["message"]["content"]
    assert captions[0] != captions[1]
    assert set(found.locator(".lm-parts").nth(1).inner_text().split("\n")) >= {"reward", "itm", "fluency"}
    # Numbers stand under the tokens: the colours are not all there is.
    tokens = found.locator(".lm-served .lm-token")
    assert tokens.count() == answer.json()["usage"]["completion_tokens"]
    numbers = tokens.locator(".lm-logprob").all_inner_texts()
    assert all(float(number.replace("\N{MINUS SIGN}", "-")) <= 0 for number in numbers)
    assert "return" in (tokens.first.get_attribute("title") or "")
    expect(tokens.locator(".lm-return").first).to_be_hidden()
    page.get_by_label("Return").check()
    expect(tokens.locator(".lm-return").first).to_be_visible()
    expect(tokens.locator(".lm-logprob").first).to_be_hidden()
    page.get_by_label("No tokens").check()
    expect(tokens.first).to_be_hidden()


def test_captions_are_copied_and_downloaded(look: Open, tmp_path: Path) -> None:
    page = look()
    page.locator("#limner-gallery button").nth(1).click()
    captions = looks(page).locator(".lm-caption").all_inner_texts()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = str(page.evaluate("navigator.clipboard.readText()")).splitlines()
    assert [line.split("\t")[1:] for line in copied] == [
        list(pair) for pair in zip(MODELS, captions, strict=True)
    ]
    with page.expect_download() as download:
        page.get_by_role("link", name="JSONL").click()
    assert download.value.suggested_filename == "captions.jsonl"
    download.value.save_as(tmp_path / "captions.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text("utf8").splitlines()]
    assert [row["caption"] for row in rows] == captions
    assert [len(row["tokens"]) == len(row["logprobs"]) == len(row["returns"]) for row in rows] == [True] * 2
    assert set(rows[0]["parts"]) >= {"itm", "fluency"}


def test_a_broken_file_is_named_and_the_others_are_captioned(look: Open, tmp_path: Path) -> None:
    page = look()
    title = page.title()
    odd = "${document.title='hacked'}<img src=x onerror=document.title=1>.png"
    upload(page, ("broken.png", b"this is no image"), (odd, content(0, tmp_path)))
    looks(page)
    alert = page.get_by_role("alert").filter(has_text="broken.png")
    expect(alert).to_contain_text("not an image (JPEG, PNG")
    assert page.title() == title
    assert "Traceback" not in page.content()


def test_a_file_above_the_limit_is_refused_in_words(look: Open) -> None:
    page = look()
    upload(page, ("large.png", bytes(300_000)))
    expect(page.get_by_text("exceed the maximum allowed size")).to_be_visible()
    expect(page.locator(".lm-look")).to_have_count(0)


def test_a_short_video_is_shown_as_its_frames(look: Open, tmp_path: Path) -> None:
    film = nasty_videos.video(tmp_path / "film.mp4", 20)
    page = look()
    upload(page, ("film.mp4", film.read_bytes()))
    assert looks(page).locator("figcaption").inner_text() == "film.mp4 · 8 frames"


def test_sliders_decide_how_captions_are_drawn(look: Open) -> None:
    page = look()
    page.get_by_role("button", name="Decoding").click()
    expect(page.get_by_label("range slider for Captions")).to_be_visible()

    def refused() -> bool:
        put(page, Captions="3")
        page.locator("#limner-gallery button").first.click()
        expect(page.locator("#limner-results .lm-look, #limner-results [role=alert]").first).to_be_visible()
        return "need a temperature above 0" in " ".join(page.get_by_role("alert").all_inner_texts())

    until(refused)
    put(page, Temperature="1.5")
    page.get_by_role("button", name="Caption", exact=True).click()
    assert looks(page).locator(".lm-caption").count() == 6
    put(page, Beams="3", Most_tokens="2")
    page.get_by_role("button", name="Caption", exact=True).click()
    expect(page.locator(".lm-served .lm-cut").first).to_be_visible()
    assert page.locator(".lm-served .lm-token").count() <= 6


def test_the_keyboard_alone_is_enough_in_a_narrow_window(look: Open) -> None:
    page = look(400)
    page.locator("#limner-files button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Thumbnail 2 of 12"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    found = looks(page)
    expect(found).to_be_in_viewport()
    for _ in range(11):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "limner-run"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    chromium.show_pictures(page)
