"""The whole page: self-contained, escaped, and written whatever is missing."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from limner.errors import UserError
from limner.report import write
from made_up_run import make, make_photographs
from patience import cheap

ATTACK = "<script>document.title='hacked'</script><img src=x onerror=alert(1)>\"'&"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the page."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.script = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.script += data
        elif self._inside != "style":
            self.text += data


def read(path):
    return Elements(path.read_text(encoding="utf-8"))


def test_the_page_loads_nothing(tmp_path):
    path = write(make(tmp_path))
    page = read(path)
    assert path == tmp_path / "made-up" / "report.html"
    for tag, attributes in page.found:
        assert tag not in {"link", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert not re.search(r"url\(|@import", path.read_text())
    assert sum(tag == "img" for tag, _ in page.found) >= 20


def test_the_policy_allows_the_page_s_own_script_and_no_other(tmp_path):
    page = read(write(make(tmp_path)))
    (policy,) = [a["content"] for tag, a in page.found if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_what_models_and_files_say_is_text(tmp_path):
    run = make(tmp_path)
    attack = json.dumps(ATTACK)[1:-1]
    for path in [*run.glob("evaluation/*.json"), *run.glob("samples/*.jsonl")]:
        path.write_text(
            re.sub(
                r'("(?:caption|id|question|kind|said)": ")', lambda found: found[1] + attack, path.read_text()
            )
        )
    with (run / "rejects.jsonl").open("a") as file:
        file.write(json.dumps({"id": ATTACK, "reason": ATTACK}) + "\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 61, f"reward/{ATTACK}": 1.0}) + "\n")
    (run / "environment.json").write_text(json.dumps({ATTACK: ATTACK, "libraries": {ATTACK: [ATTACK]}}))
    settings = json.loads((run / "resolved.json").read_text())
    settings["data.path"] = {"value": ATTACK, "origin": ATTACK}
    (run / "resolved.json").write_text(json.dumps(settings))
    page = read(write(run))
    assert sum(tag == "script" for tag, _ in page.found) == 1
    assert not any("onerror" in attributes for _, attributes in page.found)
    assert ATTACK in page.text


def test_lone_surrogates_and_control_characters_do_not_stop_the_page(tmp_path):
    run = make(tmp_path)
    path = run / "evaluation/after.json"
    path.write_text(path.read_text().replace('"caption": "a', '"caption": "\\ud800\\u0000 a'))
    assert "?" in read(write(run)).text


PIECES = {
    "metrics.jsonl": "There is no metrics.jsonl",
    "resolved.json": "update: {steps: 60}",
    "recipe.yaml": "All 7 values",
    "environment.json": "There is no environment.json",
    "rejects.jsonl": "None were rejected",
    "samples": "There are no samples/step-*.jsonl",
    "checkpoints": "No checkpoint was chosen",
    "evaluation/before.json": "There is no evaluation/before.json",
    "evaluation/after.json": "There is no evaluation/after.json",
    "evaluation/images": "no picture kept",
}


@pytest.mark.parametrize("name", PIECES)
def test_a_missing_piece_is_said_in_its_place(name, tmp_path):
    run = make(tmp_path)
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read(write(run))
    assert PIECES[name] in page.text
    assert str(tmp_path) not in page.text


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"{}\n", b"[1, 2]\n", b'"text"\n', b'{"rows": 3}\n', b"null\n"]
)
@pytest.mark.parametrize(
    "name",
    [
        *("metrics.jsonl", "resolved.json", "environment.json", "rejects.jsonl", "recipe.yaml"),
        *("samples/step-000020.jsonl", "checkpoints/step-000060/progress.json"),
        *("evaluation/before.json", "evaluation/after.json"),
    ],
)
def test_a_piece_that_holds_something_else_does_not_stop_the_page(name, content, tmp_path):
    run = make(tmp_path)
    (run / name).write_bytes(content)
    page = read(write(run))
    assert "Environment" in page.text
    assert str(tmp_path) not in page.text


@pytest.mark.parametrize("kept", ["recipe.yaml", "metrics.jsonl", "resolved.json"])
def test_a_run_that_just_began_has_a_page(kept, tmp_path):
    whole = make(tmp_path)
    run = tmp_path / "new"
    run.mkdir()
    shutil.copy(whole / kept, run / kept)
    assert "new" in read(write(run)).text


def test_a_long_run_makes_a_small_page_soon(tmp_path):
    keys = [f"watch/measure_{n}" for n in range(20)]
    rows = [{"step": step, **dict.fromkeys(keys, step * 7919 % 1000 / 10)} for step in range(1, 5001)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cheap(lambda: write(tmp_path))
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_an_unfinished_run_says_so(tmp_path):
    run = make(tmp_path)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:20]) + lines[20][:30])
    assert "unfinished: step 20 of 60" in read(write(run)).text


def test_photographs_make_a_page_without_facts_or_values(tmp_path):
    page = read(write(make_photographs(tmp_path)))
    assert "underlined in" not in page.text
    assert "what the value function expected" not in page.text
    assert "holiday/père & mère 0.jpg" in page.text


def test_the_same_run_makes_the_same_page_where_it_is_told(tmp_path):
    run = make(tmp_path)
    first = write(run).read_bytes()
    second = write(run, tmp_path / "elsewhere.html")
    assert second == tmp_path / "elsewhere.html"
    assert second.read_bytes() == first


@pytest.mark.parametrize(
    ("make_it", "said"), [(False, "no such folder"), (True, "is not the folder of a run")]
)
def test_a_folder_that_is_no_run_is_refused(make_it, said, tmp_path):
    folder = tmp_path / "nothing"
    if make_it:
        folder.mkdir()
    with pytest.raises(UserError, match=said):
        write(folder)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match=r"missing/page.html: cannot be written"):
        write(make(tmp_path), tmp_path / "missing" / "page.html")
