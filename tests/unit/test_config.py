"""Recipes: strict, all mistakes at once, every value with its origin."""

import json
import sys

import pytest

from limner import config
from limner.errors import UserError

PLUGIN = """
from __future__ import annotations
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal
from annotated_types import Gt

@dataclass(frozen=True)
class Captioner:
    path: str
    train: tuple[str, ...] = ()
    prompt: str = ""

@dataclass(frozen=True)
class Source:
    path: str
    recursive: bool = True
    count: int | None = None

@dataclass(frozen=True)
class Reward:
    weight: float = 1.0
    words: Mapping[str, float] = field(default_factory=dict)

@dataclass(frozen=True)
class Head:
    rank: int = 4
    widths: tuple[Annotated[int, Gt(0)], ...] = (2, 4, 8)

@dataclass(frozen=True)
class Advantage:
    gamma: float = 1.0
    value: Head | None = None
    least_captions = 1

    def __post_init__(self):
        if self.gamma > 1:
            raise ValueError("gamma above 1 never ends")

@dataclass(frozen=True)
class Objective:
    of: Literal["probability", "log_probability"] = "probability"
"""
RECIPE = """# limner train mine.yaml
captioner: {kind: "parts_for_config:Captioner", path: models/blip2, train: [query_tokens, qformer]}
data:
  kind: parts_for_config:Source
  path: ???
rewards:
  first: {kind: "parts_for_config:Reward"}
  second: {kind: "parts_for_config:Reward", weight: 2, words: {a: 1}}
advantage: {kind: "parts_for_config:Advantage", value: {rank: 8}}
objective: {kind: "parts_for_config:Objective"}
update: {captions: 64, lr: 1e-4, steps: 10}
evaluate: {decoding: {num_beams: 3}}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "parts_for_config", raising=False)
    (tmp_path / "parts_for_config.py").write_text(PLUGIN)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def errors(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        config.load("mine.yaml", overrides)
    return str(caught.value).splitlines()[1:]


def test_sections_and_components_become_their_dataclasses(here):
    recipe = config.load("mine.yaml", ["data.path=photos"])
    assert recipe.captioner.train == ("query_tokens", "qformer")
    assert recipe.data.path == "photos"
    assert isinstance(recipe.rewards["second"].weight, float)
    assert recipe.rewards["second"].words == {"a": 1.0}
    assert recipe.advantage.value.rank == 8
    assert recipe.advantage.value.widths == (2, 4, 8)
    assert recipe.update.lr == 1e-4
    assert recipe.name == "mine"


def test_a_section_keeps_the_defaults_of_its_place(here):
    """evaluate.decoding defaults to the published beam search, not to Decoding's own defaults."""
    decoding = config.load("mine.yaml", ["data.path=photos"]).evaluate.decoding
    assert (decoding.num_beams, decoding.do_sample, decoding.no_repeat_ngram_size) == (3, False, 2)


def test_every_value_has_an_origin(here):
    recipe = config.load("mine.yaml", ["data.path=photos", "rewards.first.weight=0.5"])
    assert recipe.origins["data.path"] == "command line"
    assert recipe.origins["data.kind"] == "mine.yaml:4"
    assert recipe.origins["rewards.first.weight"] == "command line"
    assert recipe.origins["rewards.second.weight"] == "mine.yaml:8"
    assert recipe.origins["advantage.value.rank"] == "mine.yaml:9"
    assert recipe.origins["advantage.value.widths"] == "default"
    assert recipe.origins["evaluate.decoding.num_beams"] == "mine.yaml:12"
    assert recipe.origins["evaluate.decoding.max_new_tokens"] == "default"
    assert recipe.origins.keys() == recipe.settings.keys()


def test_all_mistakes_come_at_once(here):
    said = errors(
        "update.lrr=1",
        "update.lr=fast",
        "update.optimiser=adan",
        "rewards.first.weight=true",
        "captioner.train=[1]",
        "rollout.top_k=-1",
        "rollout.captions=2.5",
        "advantage.value.widths=[2, 0]",
        "objective.kind=polcy_gradient",
        "evalute.every=3",
        "update.kind=x",
        "run=3",
    )
    expected = [
        "evalute: {\"every\": 3}: there is no 'evalute', did you mean 'evaluate'?; known here: captioner, ",
        "captioner.train.0: 1: must be a valid string; put it in quotes",
        "data.path: missing: give it on the command line: data.path=...",
        "rewards.first.weight: true: must be a valid number",
        "advantage.value.widths.1: 0: must be greater than 0",
        "objective.kind: \"polcy_gradient\": there is no 'polcy_gradient'",
        "update.lrr: 1: there is no 'lrr', did you mean 'lr'?",
        "update.kind: \"x\": there is no 'kind'",
        'update.lr: "fast": must be a valid number',
        "update.optimiser: \"adan\": must be 'adam' or 'adamw' (there is no 'adan', did you mean 'adam'?)",
        "rollout.top_k: -1: must be greater than or equal to 0",
        "rollout.captions: 2.5: must be a valid integer",
        "run: 3: must be a mapping of settings",
    ]
    for line in expected:
        assert any(row.startswith(line) for row in said), f"{line!r} is not in\n" + "\n".join(said)
    assert len(said) == len(expected)


def test_missing_required_settings_are_each_named(here):
    (here / "mine.yaml").write_text("captioner: {kind: 'parts_for_config:Captioner'}\n")
    said = errors()
    for path in ("captioner.path", "data", "rewards", "advantage", "objective"):
        assert f"{path}: missing: give it on the command line: {path}=..." in said
    for path in ("update.captions", "update.lr", "update.steps"):
        assert f"{path}: missing: give it on the command line: {path}=..." in said


def test_a_component_s_own_refusal_names_its_section(here):
    assert errors("data.path=x", "advantage.gamma=2") == ["advantage: gamma above 1 never ends"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("rollout.num_beams=2", "rollout: num_beams above 1 is a search, not a draw: set do_sample to false"),
        ("rollout.min_new_tokens=99", "rollout: min_new_tokens 99 is above max_new_tokens 60"),
        ("rollout.captions=3", "update.captions: 64: must be a multiple of rollout.captions, which is 3"),
        ("rewards.first=3", "rewards.first: 3: must be a mapping of settings"),
        ("advantage.value=null", None),
        ("update.lr=null", "update.lr: null: must be a valid number"),
    ],
)
def test_contradictions_and_nulls(here, override, line):
    if line is None:
        assert config.load("mine.yaml", ["data.path=x", override]).advantage.value is None
    else:
        assert errors("data.path=x", override) == [line]


def test_null_on_the_command_line_removes_a_reward(here):
    recipe = config.load("mine.yaml", ["data.path=x", "rewards.first=null"])
    assert list(recipe.rewards) == ["second"]
    assert not any(path.startswith("rewards.first") for path in recipe.settings)
    assert errors("data.path=x", "rewards.first=null", "rewards.second=null") == [
        "rewards: {}: empty: name at least one reward"
    ]


def test_null_in_the_file_is_refused(here):
    (here / "mine.yaml").write_text(RECIPE.replace('first: {kind: "parts_for_config:Reward"}', "first:"))
    assert errors("data.path=x")[0].startswith("rewards.first: null: write {} for default settings")


def test_another_kind_starts_its_section_afresh(here):
    (here / "other_parts.py").write_text(
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Split:\n    split: str = 'train'\n"
    )
    recipe = config.load("mine.yaml", ["data.split=test", "data.kind=other_parts:Split"])
    assert recipe.data.split == "test"


@pytest.mark.parametrize("path", ["world:train", "photos/", "???"])
def test_another_kind_drops_the_path_that_told_the_one_before(here, path):
    section = f'data: {{path: "{path}"}}'
    (here / "mine.yaml").write_text(
        RECIPE.replace(RECIPE[RECIPE.index("data:") : RECIPE.index("\nrew")], section)
    )
    mixed = ["data.ratio={world: 1}", "data.kind=mixture", "data.parts={world: {split: train}}"]
    assert list(config.load("mine.yaml", mixed).data.parts) == ["world"]
    assert config.load("mine.yaml", ["data.path=cats.jsonl", "data.kind=jsonl"]).data.path == "cats.jsonl"
    assert errors("data.kind=jsonl")[0].startswith("data.path: missing: give it on the command line")


def test_the_kind_that_the_path_tells_keeps_its_settings(here):
    section = "data: {path: photos/, max_side: 64}"
    (here / "mine.yaml").write_text(
        RECIPE.replace(RECIPE[RECIPE.index("data:") : RECIPE.index("\nrew")], section)
    )
    source = config.load("mine.yaml", ["data.kind=folder"]).data
    assert (source.path, source.max_side) == ("photos/", 64)


@pytest.mark.parametrize("text", ["2024", "yes", "a: b", "@home", "*.png", "null-island", "[x"])
def test_text_from_the_command_line_stays_text(here, text):
    assert config.load("mine.yaml", [f"data.path={text}"]).data.path == text


@pytest.mark.parametrize("override", ["data.path", "=3", "data..path=3", "update.lr.x=3"])
def test_an_override_that_is_none_is_refused(here, override):
    with pytest.raises(UserError, match=r"section\.setting=value|it has no settings"):
        config.load("mine.yaml", [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "is not YAML"),
        ("- 1", "must be a mapping of sections"),
        ("", "must be a mapping of sections"),
        ("a: 1\na: 2", "duplicate key"),
        ("update: {lr: '${updte.lr}'}", "updte"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(here, text, message):
    (here / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"(?s)bad\.yaml: .*{message}"):
        config.load("bad.yaml")


def test_a_file_that_is_no_text_is_named(here):
    (here / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8"):
        config.load("bad.yaml")


def test_resolved_reads_back_to_the_same_recipe(here):
    recipe = config.load("mine.yaml", ["data.path=photos", "rewards.first=null"])
    (here / "resolved.json").write_text(json.dumps(recipe.resolved()))
    again = config.load_resolved(here / "resolved.json")
    assert again.resolved() == recipe.resolved()
    assert again.rewards == recipe.rewards
    assert again.update == recipe.update
    with pytest.raises(UserError, match=r"is .* the folder of a run"):
        config.load_resolved(here / "runs" / "resolved.json")


def test_the_source_keeps_the_text_and_the_overrides(here):
    source = config.load("mine.yaml", ["data.path=photos"]).source
    assert source.startswith(RECIPE)
    assert source.endswith("# on the command line:\n#   data.path=photos\n")


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("world:test", {"kind": "world", "split": "test"}),
        ("captions.jsonl", {"kind": "jsonl", "path": "captions.jsonl"}),
        ("photos/", {"kind": "folder", "path": "photos/"}),
    ],
)
def test_a_data_path_tells_its_kind(here, path, settings):
    (here / "mine.yaml").write_text(RECIPE.replace("  kind: parts_for_config:Source\n", ""))
    given = config.read(here / "mine.yaml", [f"data.path={path}"])
    assert given.tree["data"] == settings
    assert {given.origins[f"data.{key}"] for key in settings} == {"command line"}


def test_an_incomplete_recipe_can_be_shown(here):
    recipe = config.load("mine.yaml", complete=False)
    assert recipe.data is None
    assert recipe.settings["data.path"] == "???"
    assert recipe.origins["data.path"] == "mine.yaml:5"
    assert recipe.rewards["second"].weight == 2
    with pytest.raises(UserError, match=r"update\.lr: true"):
        config.load("mine.yaml", ["update.lr=true"], complete=False)


def test_decoding_settings_go_on_top_of_the_published_ones():
    made = config.decoding(["num_beams=1", "max_new_tokens=20"])
    assert (made.num_beams, made.max_new_tokens, made.min_new_tokens, made.do_sample) == (1, 20, 4, False)
    with pytest.raises(UserError, match=r"(?s)num_beam: 3: there is no 'num_beam'.*top_k: -1: must be"):
        config.decoding(["num_beam=3", "top_k=-1"])
    with pytest.raises(UserError, match="set do_sample to false"):
        config.decoding(["do_sample=true"])
