"""The pieces of HTML of the browser's view."""

import json
import re
from html.parser import HTMLParser

import pytest

from limner.live import view
from limner.live.follow import Runs
from made_up_run import CHOSEN, make

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>${alert(3)}{{ 7 * 6 }}'


class Read(HTMLParser):
    """Tags and attributes of a page, with every tag closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes = [], [], set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pieces(folder):
    runs = Runs(folder)
    runs.look(0.0)
    order = list(runs)
    return view.all_runs(order, folder=str(folder), chosen=order[0].name), view.one_run(order[0])


def test_a_run_is_shown_with_curves_alarms_and_pictures(tmp_path):
    run = make(tmp_path)
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(61, 72):
            file.write(json.dumps({"step": step, "watch/cut": 0.9}) + "\n")
    table, depth = pieces(tmp_path)
    assert Read(table).tags.count("tr") == 2
    assert ">1.00<" in table  # the last reward
    assert 'class="alarm-word">cut<' in table
    found = Read(depth)
    assert found.tags.count("svg") == 7
    assert found.tags.count("img") == 1
    assert "Cut by the length limit: 90.0%" in depth
    assert 'class="alarm-span"' in depth
    assert f"chosen checkpoint: step {CHOSEN}" in depth
    assert "data-hover" not in depth


def test_nothing_of_a_run_is_markup(tmp_path):
    run = make(tmp_path)
    sample = {"id": ATTACK, "image": "images/00.png", "caption": ATTACK, "parts": {ATTACK: 1.0}}
    (run / "samples/step-000090.jsonl").write_text(json.dumps(sample) + "\n")
    settings = json.loads((run / "resolved.json").read_text())
    settings["advantage.kind"] = {"value": ATTACK, "origin": ATTACK}
    settings["watch.alarms"] = {"value": {f"reward/{ATTACK}": {"max": 1}}, "origin": ATTACK}
    (run / "resolved.json").write_text(json.dumps(settings))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 70, f"reward/{ATTACK}": 9.0}) + "\n")
    run.rename(tmp_path / "<i onclick=alert(4)>")
    for piece in pieces(tmp_path):
        found = Read(piece)
        assert not {"script", "i onclick"} & set(found.tags)
        assert not [name for name in found.attributes if name.startswith("on")]
        assert "alert(" in piece


def test_a_run_without_anything_says_so(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new/resolved.json").write_text("{}")
    table, depth = pieces(tmp_path)
    assert "starting" in table
    assert "No step was logged yet." in depth
    assert "There are no samples" in depth
    assert "no runs yet" in view.all_runs([], folder="here")


@pytest.mark.parametrize("size", [0, 1, 20, 60, 100])
def test_a_picture_that_is_still_being_written_is_left_out(tmp_path, size):
    run = make(tmp_path)
    picture = run / "samples/images/00.png"
    picture.write_bytes(picture.read_bytes()[:size])
    assert "no picture kept" in pieces(tmp_path)[1]


def test_a_picture_outside_of_the_run_is_not_shown(tmp_path):
    run = make(tmp_path)
    (tmp_path / "secret.png").write_bytes((run / "samples/images/00.png").read_bytes())
    sample = {"id": "one", "image": "../../secret.png", "caption": "a", "parts": {}}
    (run / "samples/step-000090.jsonl").write_text(json.dumps(sample) + "\n")
    assert "no picture kept" in pieces(tmp_path)[1]


def test_the_style_touches_nothing_but_the_tab():
    rules = re.findall(r"^\s*([^@{}]+)\{", view.style(), flags=re.MULTILINE)
    selectors = [selector.strip() for rule in rules for selector in rule.split(",")]
    assert len(selectors) > 50
    assert all(re.match(r"(\.dark )?\.limner-runs\b", selector) for selector in selectors)
    assert "url(" not in view.style()
