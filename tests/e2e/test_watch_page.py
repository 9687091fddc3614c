"""`limner watch --page` in Chromium: it follows a run, shows its samples, and asks for nothing outside."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from playwright.sync_api import expect

import chromium
from made_up_run import make
from patience import SECONDS, free_port
from served import answers

pytestmark = [*chromium.MARKS, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page's address and the folder that it follows."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder, name="older")
    make(folder, name="newer")
    os.utime(folder / "older/resolved.json", (1, 1))
    port = free_port()
    log = folder.parent / "page.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "limner", "watch", str(folder), "--page", "--port", str(port)]
        process = subprocess.Popen(command, stdout=file, stderr=file)
    url = f"http://127.0.0.1:{port}/"
    try:
        answers(process, url, log)
        yield url, folder
        process.terminate()
        process.wait(SECONDS)
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as browser:
        yield browser


@pytest.fixture
def page(browser, served):
    """A narrow window; the test fails if a script fails or anything outside is asked for."""
    heard = []
    context = chromium.opened(browser, viewport={"width": 400, "height": 900})
    page = context.new_page()
    chromium.hear(page, heard, served[0])
    page.goto(served[0])
    yield page
    context.close()
    assert heard == []


def test_a_run_is_followed(page, served):
    folder = served[1]
    expect(page.locator(".limner-runs h2")).to_contain_text("newer")
    expect(page.locator(".limner-runs tbody tr")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 400

    page.get_by_label("Look into").click()
    page.get_by_role("option", name="older").click()
    depth = page.locator("#limner-one-run")
    expect(depth.locator("h2")).to_contain_text("older")

    run = folder / "older"
    Image.new("RGB", (48, 48), (0, 128, 0)).save(run / "samples/images/01.png")
    caption = "<img src=x onerror=alert(1)> ${alert(2)} a green field"
    sample = {"id": "new", "image": "images/01.png", "caption": caption, "parts": {"itm": 0.25}}
    (run / "samples/step-000071.jsonl").write_text(json.dumps(sample) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        rows = [{"step": step, "watch/cut": 0.9, "reward/total": 5.0} for step in range(61, 72)]
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    expect(depth).to_contain_text("Latest samples, step 71")
    expect(depth.locator(".alarms")).to_contain_text("Cut by the length limit")
    expect(depth.locator(".words")).to_have_text(caption)
    chromium.show_pictures(page)
    expect(depth.locator(".chart.alarmed .alarm-span")).to_have_count(1)

    make(folder, name="newest")
    expect(page.locator(".limner-runs tbody tr")).to_have_count(3)
    expect(depth.locator("h2")).to_contain_text("older")
    shutil.rmtree(run)
    expect(depth.locator("h2")).to_contain_text("newe")
    expect(page.locator(".limner-runs tbody tr")).to_have_count(2)
