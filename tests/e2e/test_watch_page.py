"""`limner watch --page` in Chromium: it follows a run, shows its samples, and asks for nothing outside."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from made_up_run import make

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 120_000
"""Milliseconds for anything to happen."""

pytestmark = [
    pytest.mark.page,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason="Chromium is not installed (apt-get install chromium); CI must have it",
    ),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page's address and the folder that it follows."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder, name="older")
    make(folder, name="newer")
    os.utime(folder / "older/resolved.json", (1, 1))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    log = folder.parent / "page.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "limner", "watch", str(folder), "--page", "--port", str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    url = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + PATIENCE / 1000
    try:
        while not answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url, folder
        process.terminate()
        process.wait(60)
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served):
    """A narrow window; the test fails if a script fails or anything outside is asked for."""
    heard = []
    context = browser.new_context(viewport={"width": 400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: _note(heard, request.url, served[0]))
    page.goto(served[0])
    yield page
    context.close()
    assert heard == []


def _note(heard, url, ours):
    if not url.startswith((ours, "data:", "blob:")):
        heard.append(f"asked for {url}")


def test_a_run_is_followed(page, served):
    folder = served[1]
    expect(page.locator(".limner-runs h2")).to_contain_text("newer", timeout=PATIENCE)
    expect(page.locator(".limner-runs tbody tr")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 400

    page.get_by_label("Look into").click()
    page.get_by_role("option", name="older").click()
    depth = page.locator("#limner-one-run")
    expect(depth.locator("h2")).to_contain_text("older", timeout=PATIENCE)

    run = folder / "older"
    Image.new("RGB", (48, 48), (0, 128, 0)).save(run / "samples/images/01.png")
    caption = "<img src=x onerror=alert(1)> ${alert(2)} a green field"
    sample = {"id": "new", "image": "images/01.png", "caption": caption, "parts": {"itm": 0.25}}
    (run / "samples/step-000071.jsonl").write_text(json.dumps(sample) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        rows = [{"step": step, "watch/cut": 0.9, "reward/total": 5.0} for step in range(61, 72)]
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    expect(depth).to_contain_text("Latest samples, step 71", timeout=PATIENCE)
    expect(depth.locator(".alarms")).to_contain_text("Cut by the length limit", timeout=PATIENCE)
    expect(depth.locator(".words")).to_have_text(caption)
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert depth.locator(".chart.alarmed .alarm-span").count() == 1

    make(folder, name="newest")
    expect(page.locator(".limner-runs tbody tr")).to_have_count(3, timeout=PATIENCE)
    expect(depth.locator("h2")).to_contain_text("older")
    shutil.rmtree(run)
    expect(depth.locator("h2")).to_contain_text("newe", timeout=PATIENCE)
    expect(page.locator(".limner-runs tbody tr")).to_have_count(2)
