"""What a run's folder tells of a model: how it was trained, on what, how it measures, what went wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from limner import checkpoint, config
from limner.captioners.base import is_adapter
from limner.config_read import nested
from limner.data import mixture, world_videos
from limner.data.base import Source, VideoSource
from limner.decoding import Decoding
from limner.errors import UserError
from limner.model_card.text import public
from limner.report import about, measured, watched
from limner.report.files import Absent, RunFiles

if TYPE_CHECKING:
    from limner.captioners.base import Policy

OF_THE_MACHINE = ("run.output", "run.name", "run.device")
"""Settings that say nothing of the model."""
REASONS = 5
"""Reasons of rejected items that are named."""


@dataclass(frozen=True)
class Facts:
    """What a card says of a run."""

    step: int
    """The step of the checkpoint."""
    trained: tuple[tuple[str, int], ...]
    """(part, parameters) that were trained."""
    method: str
    """How, in a few words."""
    rewards: tuple[tuple[str, str, float], ...]
    """(name, kind, weight) of every reward."""
    training: tuple[tuple[str, str], ...]
    """(title, value) of what else a reader asks of the training."""
    data: tuple[tuple[str, str], ...]
    """(title, value): source, items, captions drawn, rejected items with reasons."""
    results: measured.Table | None
    """Measures before and after; None where this checkpoint was not measured."""
    measured_on: str
    """What they were measured on; or why there are none."""
    alarms: tuple[str, ...]
    """What the run itself complained of."""
    recipe: str
    """The settings that were given, as YAML."""
    decoding: Decoding
    """How the measured captions were written."""
    videos: bool
    """Whether it was trained on videos."""
    shown_from_evaluation: bool
    """Whether the captions kept by the run's evaluation are this checkpoint's."""

    def tags(self, *, adapters: bool) -> list[str]:
        """Tags for Hugging Face."""
        lora = adapters or any(part.endswith("LoRA)") for part, _ in self.trained)
        subject = "video-captioning" if self.videos else "image-captioning"
        return ["limner", subject, *["reinforcement-learning"] * bool(self.rewards), *["lora"] * lora]


def gather(run: Path, which: str, policy: Policy) -> Facts:
    """Read a run's folder; what is missing in it is left out.

    Args:
        run: the run directory.
        which: "best", "last" or a step number.
        policy: the captioner of that checkpoint.

    Raises:
        UserError: there is no such checkpoint.
    """
    recipe, files = config.load_resolved(run / "resolved.json"), RunFiles(run)
    folder = checkpoint.choose(run, which)
    progress = checkpoint.read_progress(folder)
    chosen = folder == checkpoint.choose(run)
    results, measured_on = _results(files, progress.step, chosen=chosen, folder=folder, run=run)
    return Facts(
        step=progress.step,
        trained=_trained(policy),
        method=_method(recipe),
        rewards=tuple(
            (name, _kind(recipe, f"rewards.{name}"), r.weight) for name, r in recipe.rewards.items()
        ),
        training=_training(recipe, files, progress),
        data=_data(recipe, files, progress),
        results=results,
        measured_on=measured_on,
        alarms=_alarms(files),
        recipe=_recipe(recipe),
        decoding=recipe.evaluate.test_decoding,
        videos=_videos(recipe.data),
        shown_from_evaluation=results is not None and files.after is not None,
    )


def _trained(policy: Policy) -> tuple[tuple[str, int], ...]:
    counts: Counter[str] = Counter()
    for name, parameter in policy.trained().items():
        counts[name.split(".")[0] + (" (LoRA)" if is_adapter(name) else "")] += parameter.numel()
    return tuple(counts.items())


def _kind(recipe: config.Recipe, section: str) -> str:
    """The component of a section."""
    return str(recipe.settings.get(f"{section}.kind", section.rpartition(".")[2]))


def _method(recipe: config.Recipe) -> str:
    advantage, objective = _kind(recipe, "advantage"), _kind(recipe, "objective")
    if recipe.rollout.of == "references":
        how = "on reference captions"
        return f"cross-entropy {how}" if objective == "cross_entropy" else f"{objective} {how}"
    return f"reinforcement learning (advantage `{advantage}`, objective `{objective}`)"


def _training(
    recipe: config.Recipe, files: RunFiles, progress: checkpoint.Progress
) -> tuple[tuple[str, str], ...]:
    update, best = recipe.update, recipe.evaluate.best
    chosen = (
        f", the best by {best} on held-out samples" if best and progress.step == files.chosen_step else ""
    )
    rate = f"{update.lr:g}, {update.optimiser}, {update.warmup_steps:,} steps of warm-up, {update.schedule}"
    rows = [
        ("step", f"{progress.step:,} of {update.steps:,}{chosen}"),
        ("captions a step", f"{update.captions:,}, {recipe.rollout.captions:,} a sample"),
        ("learning rate", rate),
        ("prompt", repr(recipe.captioner.prompt) if recipe.captioner.prompt else "none"),
        ("seed, number format", f"{recipe.run.seed}, {recipe.run.dtype} (trained parts float32)"),
    ]
    try:
        kept = ("gpu", "python", "torch", "transformers", "peft", "limner")
        known = dict(about.environment(files))
        rows.append(("ran with", ", ".join(f"{name} {known[name]}" for name in kept if name in known)))
    except Absent:
        pass
    return tuple(rows)


def _data(
    recipe: config.Recipe, files: RunFiles, progress: checkpoint.Progress
) -> tuple[tuple[str, str], ...]:
    try:
        items = f"{len(recipe.data):,} when this card was written"
    except (UserError, OSError):
        items = "not known: the data were not at hand when this card was written"
    rows = [
        ("source", f"{_source(recipe.data)} (data source {_kind(recipe, 'data')})"),
        ("items", items),
        ("items drawn", f"{progress.position:,}"),
        ("captions learnt from", f"{progress.step * recipe.update.captions:,}"),
    ]
    try:
        reasons = Counter(str(row["reason"]) for row in files.rejects)
    except Absent as absent:
        return (*rows, ("rejected", str(absent)))
    named = "; ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(REASONS))
    return (*rows, ("rejected", f"{reasons.total():,}{': ' if named else ''}{named}"))


def _source(source: Source) -> str:
    """A source's name without the folders above it; of a mixture all parts."""
    if isinstance(source, mixture.Source):
        return " + ".join(f"{source.ratio[name]} x {_source(part)}" for name, part in source.parts.items())
    return str(public(str(source)))


def _videos(source: Source) -> bool:
    if isinstance(source, mixture.Source):
        return any(map(_videos, source.parts.values()))
    return isinstance(source, VideoSource | world_videos.Source)


def _results(
    files: RunFiles, step: int, *, chosen: bool, folder: Path, run: Path
) -> tuple[measured.Table | None, str]:
    """The table of measures and what they are of, if they are this checkpoint's."""
    main = files.after
    if main is None:
        return None, f"This model was not measured by its run. {files.missing_evaluations}".strip()
    if not chosen:
        other = checkpoint.step_of(checkpoint.choose(run))
        return None, f"The run measured its checkpoint of step {other:,}, not this one of step {step:,}."
    try:
        table = measured.table(files)
    except Absent as absent:
        return None, str(absent)
    return table, f"{len(main.rows):,} captions of {public(main.data) or 'unnamed data'}"


def _alarms(files: RunFiles) -> tuple[str, ...]:
    try:
        return watched.build(files).alarms
    except Absent:
        return ()


def _recipe(recipe: config.Recipe) -> str:
    """What was set, as YAML that `limner train` reads."""
    given: dict[str, Any] = {
        path: public(row["value"], path.rpartition(".")[2])
        for path, row in recipe.resolved().items()
        if (row["origin"] != "default" or path.endswith(".kind")) and path not in OF_THE_MACHINE
    }
    return yaml.safe_dump(nested(given), sort_keys=False, allow_unicode=True, width=100)
