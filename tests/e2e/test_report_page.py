"""The report in a browser: it fits, it is quiet, it reads values under the pointer, nothing in it runs."""

import json
import re

import pytest
from playwright.sync_api import expect

import chromium
from limner.report import write
from made_up_run import make, make_photographs

LONG = "w" * 400

pytestmark = chromium.MARKS


@pytest.fixture(scope="module")
def browser():
    with chromium.running() as browser:
        yield browser


@pytest.fixture
def look(browser):
    """Opens a page; the test fails if it complains or asks for anything but itself."""
    heard, contexts = [], []

    def look(path, *, width=1280, scheme="light"):
        size = {"width": width, "height": 900}
        context = chromium.opened(browser, viewport=size, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        chromium.hear(page, heard, path.as_uri())
        page.goto(path.as_uri())
        return page

    yield look
    for context in contexts:
        context.close()
    assert heard == []


@pytest.mark.parametrize("kind", [make, make_photographs])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_as_wide_as_the_window(look, tmp_path, kind, width):
    run = kind(tmp_path)
    _lengthen(run)
    page = look(write(run), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    chromium.show_pictures(page)
    cut = page.evaluate(
        "[...document.querySelectorAll('svg text')].filter((t) => t.getBoundingClientRect().left < 0).length"
    )
    assert cut == 0


def _lengthen(run):
    """Words without a place to break, wherever a run can hold words."""
    for path in run.glob("evaluation/*.json"):
        words = r'("(?:caption": "|question": "|options": \["))\w+'
        path.write_text(re.sub(words, rf"\1{LONG}", path.read_text()))
    settings = json.loads((run / "resolved.json").read_text())
    settings[f"data.{LONG}"] = {"value": LONG, "origin": LONG}
    (run / "resolved.json").write_text(json.dumps(settings))
    (run / "environment.json").write_text(json.dumps({LONG: LONG}))
    with (run / "rejects.jsonl").open("a") as file:
        file.write(json.dumps({"id": LONG, "reason": LONG}) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 61, f"reward/{LONG}": 1.0, f"time/{LONG}": 1.0}) + "\n")
    for path in run.glob("samples/*.jsonl"):
        row = json.loads(path.read_text())
        path.write_text(
            json.dumps({**row, "tokens": [LONG, *row["tokens"][1:]], "parts": {LONG: 1.0}}) + "\n"
        )


def test_pointing_at_a_chart_reads_all_of_them_at_that_step(look, tmp_path):
    page = look(write(make(tmp_path)))
    charts = page.locator(".chart")
    before = charts.locator("output").all_text_contents()
    svg = page.locator(".chart:has([title='reward/total']) svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.97, box["y"] + box["height"] / 2)
    total = page.locator(".chart:has([title='reward/total']) output")
    words = page.locator(".chart:has([title='watch/words']) output")
    expect(total).to_have_text("step 60: 1.00")
    expect(words).to_have_text("step 60: 13.0")
    page.mouse.move(2, 2)
    expect(charts.locator("output")).to_have_text(before)


def test_nothing_that_a_model_wrote_runs(look, tmp_path):
    run = make(tmp_path)
    attack = "<script>document.title='hacked'</script><img src=x onerror=\\\"document.title='hacked'\\\">"
    for path in run.glob("evaluation/*.json"):
        path.write_text(re.sub(r'("caption": ")', lambda found: found[1] + attack, path.read_text()))
    page = look(write(run))
    assert page.title() == "made-up · limner"
    assert page.get_by_text("<script>document.title").count() > 0


def test_the_page_follows_the_scheme_of_the_system(look, tmp_path):
    path = write(make(tmp_path))
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = (look(path, scheme=scheme).evaluate(paper) for scheme in ("light", "dark"))
    assert sum(map(int, re.findall(r"\d+", light))) > 600
    assert sum(map(int, re.findall(r"\d+", dark))) < 150


def test_a_false_fact_differs_by_more_than_its_colour(look, tmp_path):
    page = look(write(make(tmp_path)))
    style = "(each) => getComputedStyle(each).textDecorationStyle"
    assert page.locator("figure .true").first.evaluate(style) == "solid"
    assert page.locator("figure .false").first.evaluate(style) == "wavy"
