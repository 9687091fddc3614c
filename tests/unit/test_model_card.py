"""Parts of a model card: licences, text that is no markup, what is published of a recipe, samples."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import made_up_run
from limner.data import folder, mixture, world_videos
from limner.model_card import facts, licence, samples
from limner.model_card.text import LONGEST, fenced, plain, public


def base(where: Path, card: str) -> str:
    (where / "README.md").write_text(card)
    return str(where)


def test_the_licence_is_the_base_model_s_unless_one_is_given(tmp_path: Path) -> None:
    card = "---\nlicense: other\nlicense_name: opt\nlicense_link: //opt\nbase_model: a/b\n---\n"
    found = licence.of(base(tmp_path, card), None)
    assert found == licence.Licence("other", "opt", "//opt", given=False, base="a/b")
    assert licence.of(str(tmp_path), "mit") == licence.Licence("mit", None, None, given=True, base="a/b")


@pytest.mark.parametrize(
    "card", ["", "hello", "---\nlicense: [a, b]\nbase_model: 3\n---\n", "---\n[1,\n---\n"]
)
def test_a_card_that_says_nothing_of_it_leaves_it_open(card: str, tmp_path: Path) -> None:
    assert licence.of(base(tmp_path, card), None) == licence.Licence(None, None, None, given=False, base=None)


def test_base_models_are_named_as_the_hub_names_them(monkeypatch) -> None:
    monkeypatch.setattr(licence, "_said", lambda base: {})  # which would ask the hub
    assert licence.of("Salesforce/blip2-opt-2.7b", None).base == "Salesforce/blip2-opt-2.7b"
    assert licence.of("/models/mine", None).base is None
    assert licence.of("world:captioner", None).base is None


def test_a_caption_is_no_markup() -> None:
    said = "a *bold* [link](x) | <img src=x>\n# `code` \\ $x$ ~~y~~ _z_ & co"
    shown = plain(said)
    assert "\n" not in shown
    assert "<" not in shown
    for mark in "*[]|`$~_":
        assert shown.count(mark) == shown.count(f"\\{mark}")
    assert len(plain("word " * 1000)) <= LONGEST + 2


def test_code_stays_code() -> None:
    assert fenced("a\n", "yaml") == "```yaml\na\n```"
    assert fenced("x = '````'", "python").startswith("`````python\n")


def test_what_is_published_of_a_recipe_names_no_folder_and_no_address() -> None:
    shown = public({
        "path": "/data/secret/photos", "base_url": "http://10.0.0.3:8000/v1",
        "other": ["~/x/y.jsonl", "../up/z"],
        "captioner": "Salesforce/blip2-opt-2.7b", "near": "photos/", "weight": 0.5, "prompt": "a photo of",
        "world": "world:test", "url": "https://user:key@example.org/v1", "none": None,
    })  # fmt: skip
    assert shown == {
        "path": "photos", "base_url": "(an endpoint)", "other": ["y.jsonl", "z"],
        "captioner": "Salesforce/blip2-opt-2.7b", "near": "photos/", "weight": 0.5, "prompt": "a photo of",
        "world": "world:test", "url": "(an endpoint)", "none": None,
    }  # fmt: skip


def test_sources_of_videos_are_known_in_mixtures_and_named_without_folders() -> None:
    clips, photos = world_videos.Source(split="train"), folder.Source(path="/data/secret/photos")
    both = mixture.Source(parts={"a": photos, "b": clips}, ratio={"a": 7, "b": 1})
    assert [facts._videos(source) for source in (clips, photos, both)] == [True, False, True]
    assert facts._source(both) == "7 x photos + 1 x world:videos-train"


def test_samples_are_evenly_spaced_and_of_the_run_s_folder(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path)
    known = SimpleNamespace(shown_from_evaluation=True, step=60)
    shown = samples.choose(run, known, 3)  # type: ignore[arg-type]
    assert [one.picture.name for one in shown] == [f"test-{n:06d}.png" for n in (0, 8, 16)]
    assert all(one.before and one.after.startswith(one.before) for one in shown)
    assert samples.choose(run, known, 0) == ()  # type: ignore[arg-type]


def test_a_picture_outside_the_run_is_not_published(tmp_path: Path) -> None:
    run = made_up_run.make(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    file = run / "samples" / "step-000060.jsonl"
    row = json.loads(file.read_text())
    file.write_text("".join(json.dumps(row | {"image": image}) + "\n" for image in (
        "images/00.png", "../../outside.png", str(tmp_path / "outside.png"), "images/none.png", 7,
    )))  # fmt: skip
    known = SimpleNamespace(shown_from_evaluation=False, step=60)
    (one,) = samples.choose(run, known, 9)  # type: ignore[arg-type]
    assert (one.picture, one.before, one.after) == (run / "samples/images/00.png", None, "an image of a star")
    known.step = 59
    assert samples.choose(run, known, 9) == ()  # type: ignore[arg-type]
