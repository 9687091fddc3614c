"""Alarms: when a limit is passed, what a single noisy step does, and a hacked reward in a real run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from limner import alarms, checkpoint, config, watch
from limner.alarms import Alarm, Alarms, Spell, Watch, spells
from limner.errors import UserError
from limner.metrics import phrases
from limner.report import curves
from limner.report.files import RunFiles
from limner.rewards.base import NoInputs
from limner.run import read_metrics
from limner.train import Trainer, train
from limner.types import Part, Rollouts, Sample, Scores, Words

LONGER = '''
from dataclasses import dataclass
import torch
from limner.rewards import base
from limner.types import Part

@dataclass(frozen=True, kw_only=True)
class Reward(base.Reward):
    """Long captions please this judge."""

    def __call__(self, rollouts):
        return Part(torch.tensor([float(len(text.split())) for text in rollouts.texts]))
'''
RECIPE = """
captioner: {{kind: blip2, path: "world:captioner", train: [query_tokens, qformer, language_projection]}}
data: {{kind: world, split: train, count: 200}}
rollout: {{captions: 4, max_new_tokens: 20}}
rewards: {{judge: {{kind: "longer:Reward"}}}}
advantage: {{kind: group_relative}}
objective: {{kind: clipped_ratio}}
update: {{captions: 32, lr: 3.0e-3, steps: 60}}
watch: {{window: 4}}
evaluate: {{every: 0}}
run: {{output: "{out}", name: run, device: cpu}}
"""


def rows(values: dict[int, float | None], key: str = "x") -> list[dict[str, float | None]]:
    """By step."""
    return [{"step": step, key: value} for step, value in values.items()]


def raised_in(limits: Alarm, values: list[float | None], window: int) -> list[int]:
    """The steps in which the alarm stands."""
    judge, found = Alarms(Watch({"x": limits}, window)), []
    for step, value in enumerate(values, start=1):
        judge({"step": step, "x": value})
        found += [step] if "x" in judge.raised else []
    return found


@pytest.mark.parametrize(
    ("limits", "last", "said"),
    [
        (Alarm(max=3), 3.1, "above 3"),
        (Alarm(min=1), 0.9, "below 1"),
        (Alarm(times=1.5), 3.1, "above 1.5 times the start"),
        (Alarm(share=0.5), 0.9, "below 0.5 of the start"),
        (Alarm(rise=1), 3.1, "more than 1 above the start"),
        (Alarm(fall=1), 0.9, "more than 1 below the start"),
        (Alarm(max=3, times=1.5), 9.0, "above 3, above 1.5 times the start"),
    ],
)
def test_each_limit_is_passed_by_more_than_it_and_not_by_itself(limits, last, said) -> None:
    judge = Alarms(Watch({"x": limits}, window=2), rows({1: 2.0, 2: 2.0, 3: 2.0}))
    assert not judge.raised
    for step in (4, 5):
        judge({"step": step, "x": 3.0 if last > 2 else 1.0})
    assert not judge.raised, "at the limit"
    (first,) = judge({"step": 6, "x": last})
    assert judge({"step": 7, "x": last}) == [], "said once"
    assert first.beyond == judge.raised["x"].beyond == said
    assert str(judge.raised["x"]) == f"x is {last:g} (2 at the start), {said}"


def test_a_single_noisy_step_raises_nothing() -> None:
    calm = [0.0] * 20
    assert raised_in(Alarm(max=0.2), [*calm[:10], 1.0, *calm], 10) == []
    assert raised_in(Alarm(max=0.2), [*calm[:10], 1.0, *calm], 1) == [11]
    assert raised_in(Alarm(max=0.2), [1.0, 0.1, 0.1], 10) == [], "before the window is full"
    assert raised_in(Alarm(max=0.2), [0.1, 0.3, 0.3, 0.3, 0.0, 0.0], 2) == [3, 4, 5]


def test_numbers_that_are_seldom_logged_are_judged_when_they_are() -> None:
    values: list[float | None] = [None] * 30
    values[4], values[14], values[24] = 1.0, 1.0, 5.0
    assert raised_in(Alarm(times=2), values, 10) == list(range(25, 31))
    assert raised_in(Alarm(max=0.5), values, 10)[0] == 15, "not in the first steps"
    assert raised_in(Alarm(max=0.5), [math.nan, math.inf, None] * 9, 1) == []


def test_a_run_that_is_resumed_judges_as_if_it_had_not_stopped() -> None:
    values = [0.1, 0.2, 0.1, 0.4, 0.5, 0.6, 0.5, 0.1, 0.0, 0.0]
    logged = rows(dict(enumerate(values, start=1)))
    settings = Watch({"x": Alarm(rise=0.2)}, window=3)
    whole = Alarms(settings)
    for place, row in enumerate(logged):
        broken = Alarms(settings, logged[:place])
        assert broken(row) == whole(row)
        assert broken.raised == whole.raised


def test_spells_are_the_steps_between_going_beyond_and_coming_back() -> None:
    values = dict(enumerate([0, 9, 9, 0, 0, 9, 9.0], start=1))
    found = spells(Watch({"x": Alarm(max=1)}, window=1), rows(values))["x"]
    assert [(spell.first, spell.last, spell.over) for spell in found] == [(2, 3, True), (6, 7, False)]
    assert isinstance(found[0], Spell)


def test_given_limits_stand_in_the_place_of_those_that_every_run_has() -> None:
    limits = Watch({"watch/cut": None, "watch/words": Alarm(times=3)}).limits
    assert "watch/cut" not in limits
    assert limits["watch/words"] == Alarm(times=3)
    assert limits["watch/self_praise"] == alarms.ALARMS["watch/self_praise"]
    assert set(alarms.MEANING) == set(alarms.ALARMS)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("watch.alarms={watch/wrods: {max: 1}}", "this run logs no watch/wrods"),
        ("watch.alarms={reward/itm: {max: 1}}", "this run logs no reward/itm"),
        ("watch.alarms={watch/words: {maximum: 1}}", r"watch/words.maximum: 1"),
        ("watch.alarms={watch/words: {}}", "at least one of"),
        ("watch.alarms={watch/words: {times: 0.5}}", "must be greater than 1"),
        ("watch.window=0", "watch.window: 0"),
    ],
)
def test_what_is_wrong_with_a_limit_is_said(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        recipe(tmp_path, override)


def test_a_limit_of_the_command_line_is_kept_with_the_run(tmp_path: Path) -> None:
    given = recipe(tmp_path, "watch.alarms.watch/words.times=3", "watch.alarms.reward/judge.max=90")
    assert given.watch.alarms == {"watch/words": Alarm(times=3), "reward/judge": Alarm(max=90)}
    assert given.origins["watch.alarms"] == "command line"
    (tmp_path / "resolved.json").write_text(json.dumps(given.resolved()))
    assert config.load_resolved(tmp_path / "resolved.json").watch == given.watch


def test_all_that_is_watched_is_known_to_the_settings() -> None:
    words = phrases.words("This caption is accurate. Two dogs on a table and a dog.")
    n, mask = 2, torch.ones(2, 3, dtype=torch.bool)
    rolled = Rollouts(
        (Sample("a", ()),), NoInputs(1), torch.zeros(n, 3, dtype=torch.long), mask, torch.zeros(n, 3),
        torch.tensor([True, False]), ("x", "x"), (Words(tuple(words), ((),) * len(words)), Words((), ())),
        lm_logprobs=torch.full((n, 3), -2.0), reference_logprobs=torch.zeros(n, 3),
    )  # fmt: skip
    scores = Scores({"y": Part(torch.ones(n))}, torch.ones(n, 3), torch.ones(n, dtype=torch.bool))
    found = watch.watch(rolled, scores) | watch.kl_to_start(None, {}, rolled, rows=1)  # type: ignore[arg-type]
    assert {key.removeprefix("watch/") for key in found if key != "unscored"} == set(alarms.WATCHED)
    assert found["watch/self_praise"].value == 0.5
    assert found["watch/objects"].value == 1.5, "dogs, table, dog in the first of two"
    assert found["watch/lm_logprob"].value == -2.0
    assert found["watch/zero_spread"].value == 1.0
    nothing = Scores({}, torch.zeros(n, 3), torch.ones(n, dtype=torch.bool))
    assert "watch/zero_spread" not in watch.watch(rolled, nothing), "no reward, no spread to miss"


def test_objects_are_found_in_the_singular_and_the_plural() -> None:
    text = "a bus , two buses , ladies with cherries , boxes , benches , leaves and Dogs".lower()
    assert phrases.objects(text.split()) == ["bus", "buses", "boxes", "benches", "leaves", "dogs"]


def recipe(folder: Path, *overrides: str) -> config.Recipe:
    (folder / "hacked.yaml").write_text(RECIPE.format(out=folder))
    return config.load(str(folder / "hacked.yaml"), overrides)


@pytest.fixture(autouse=True)
def longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "longer.py").write_text(LONGER)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_reward_for_length_is_caught_by_the_limits_that_every_run_has(tmp_path: Path, capsys) -> None:
    """Captions of the miniature world's captioner grow until the length limit cuts them, and the run ends."""
    run = train(recipe(tmp_path, "watch.stop_on_alarm=true"))
    logged = read_metrics(run)
    last = logged[-1]
    assert len(logged) < 60
    assert last["alarm/watch/cut"] == 1.0
    assert last["alarms"] == 1.0
    assert (last["watch/words"] or 0) > 2 * (logged[0]["watch/words"] or 0)
    assert all(row["alarms"] == 0 for row in logged[:-1])
    said = " ".join(capsys.readouterr().err.split())
    assert f"step {last['step']}: alarm: watch/cut is" in said
    assert f"stopped at step {last['step']} of 60: alarm: watch/cut is" in said
    saved = checkpoint.read_progress(checkpoint.choose(run, "last"))
    assert saved.step == last["step"]
    assert "watch/cut" in saved.stopped

    page = (run / "report.html").read_text(encoding="utf8")
    assert page.count('class="alarm-span"') == 1
    assert "Cut by the length limit: " in page
    assert f"ended by an alarm at step {last['step']} of 60" in page
    charts = {chart.key: chart for group in curves.build(RunFiles(run)).groups for chart in group.charts}
    assert [key for key, chart in charts.items() if chart.alarms] == ["watch/cut"]

    stopped = int(last["step"] or 0)
    trainer = Trainer(recipe(tmp_path, "watch.stop_on_alarm=true"), run)
    resumed = [trainer.step() for _ in range(3)]
    assert [row["step"] for row in resumed] == [stopped + 1, stopped + 2, stopped + 3]
    assert all(row["alarm/watch/cut"] for row in resumed)
    assert not trainer.progress.stopped, "known when the run was resumed, it ends it no more"
    trainer.close()


def test_a_reward_for_few_tokens_is_caught_too(tmp_path: Path) -> None:
    """With `length` alone captions lose all that they said, and become the same."""
    settings = ["rewards.judge=null", "rewards.length={full: 1, zero: 21, weight: 1.0}"]
    run = train(recipe(tmp_path, "watch.stop_on_alarm=true", *settings))
    last = read_metrics(run)[-1]
    assert (last["step"] or 0) < 30
    assert any(last.get(f"alarm/watch/{key}") for key in ("words", "distinct", "zero_spread"))


@pytest.mark.parametrize("moment", ["log", "save"])
def test_a_run_killed_at_its_checkpoint_has_all_rows_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Alarms are judged from the rows: one that is missing would change them."""
    settings = recipe(tmp_path, "update.steps=4", "update.captions=8", "run.checkpoint_every=2")
    trainer = Trainer(settings, tmp_path / "run")
    trainer.step()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer.run if moment == "log" else checkpoint, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.step()
    trainer.close()
    run = train(settings, resume=tmp_path / "run")
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3, 4]


def test_a_reward_for_what_people_write_raises_no_alarm(tmp_path: Path) -> None:
    steps = ["update.steps=20", "watch.stop_on_alarm=true", "update.lr=3.0e-4"]
    run = train(recipe(tmp_path, "rewards.judge=null", "rewards.cider={}", *steps))
    logged = read_metrics(run)
    assert [row["step"] for row in logged] == list(range(1, 21))
    assert (logged[-1]["reward/total"] or 0) > (logged[0]["reward/total"] or 0)
    assert not any(row["alarms"] for row in logged)
