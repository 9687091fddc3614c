"""A recipe: all that a run is made of, read from YAML and `section.setting=value`, checked before it starts.

Every section is a frozen dataclass; a component (captioner, data source, reward, advantage, objective) is its
own section. docs/configuration.md lists every setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt

from limner import paths
from limner.alarms import Watch
from limner.answering.settings import Asking
from limner.config_build import Builder, Component
from limner.config_read import Given, nested, put, read
from limner.decoding import PUBLISHED, Decoding, Rollout
from limner.errors import UserError

if TYPE_CHECKING:
    from limner.data.base import Source
else:
    Source = Any

Count = Annotated[int, Ge(0)]
Positive = Annotated[int, Ge(1)]


@dataclass(frozen=True)
class Update:
    """How the policy is changed by what a roll-out earned."""

    captions: Positive
    """Captions that one step learns from, over all ranks and micro-batches."""
    lr: Annotated[float, Gt(0)]
    """Learning rate of the policy after the warm-up."""
    steps: Positive
    """Steps of the run."""
    micro_batch: Positive = 64
    """Captions that go through the model with gradient at a time: memory, not results."""
    passes: Positive = 1
    """Updates that the captions of one step are used for; with 1 every update is of the policy's own."""
    optimiser: Literal["adam", "adamw"] = "adam"
    """Optimiser of the policy."""
    warmup_steps: Count = 0
    """Steps over which the rate rises to `lr`."""
    warmup_from: Annotated[float, Ge(0)] | None = None
    """Rate of the first step of the warm-up; null starts at `lr / warmup_steps`."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the rate goes from `lr` to `final_lr` after the warm-up; constant stays at `lr`."""
    final_lr: Annotated[float, Ge(0)] = 0.0
    """Rate at the last step of a cosine or linear schedule."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Weight decay of the policy."""
    clip_norm: Annotated[float, Gt(0)] = 1.0
    """The gradient's norm is clipped to this."""
    max_bad_steps: Positive = 3
    """A step with a loss or reward that is not finite is refused; after this many in a row the run stops."""


@dataclass(frozen=True)
class Evaluate:
    """What is measured during a run, before it and after it."""

    every: Count = 50
    """Steps between evaluations; 0 evaluates after the last step only."""
    data: Annotated[Source, Component("data")] | None = None
    """Samples to caption and measure; null measures nothing."""
    samples: Positive = 200
    """The first so many samples of `data`."""
    allow_missing: bool = False
    """Measure on what can be used where a published data set (MSR-VTT, COCO, ...) is not whole; otherwise
    that is an error, because scores on a part of it are not comparable."""
    metrics: tuple[str, ...] = ("captions",)
    """Measures, or groups of them (docs/metrics.md)."""
    clip: str | None = None
    """CLIP checkpoint for recall. No reward should see this one."""
    itm: str | None = None
    """Image-text matching checkpoint to measure with."""
    qa: Asking | None = None
    """Who answers the questions of the samples from their captions, for the measures `qa`, and how."""
    best: str | None = None
    """Measure by which the best checkpoint is kept, the higher the better; null keeps none."""
    patience: Positive | None = None
    """The run stops after this many evaluations in a row without a better `best`; null never stops it."""
    decoding: Decoding = PUBLISHED
    """How captions are written for measuring."""
    test: Annotated[Source, Component("data")] | None = None
    """Samples looked at for nothing else: measured once before the run and once with its best checkpoint."""
    test_decoding: Decoding = PUBLISHED
    """How their captions are written."""


@dataclass(frozen=True)
class Run:
    """Where a run lives, what it runs on, and how often it writes."""

    seed: Count = 0
    """Seed of everything drawn at random."""
    output: str = "runs"
    """Folder of run folders."""
    name: str | None = None
    """Name of this run's folder; null makes one of the recipe's name and the time."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the frozen weights; trained weights are float32."""
    sharding: Literal["none", "ddp", "fsdp"] = "none"
    """How several processes share a run (docs/distributed.md): ddp gives each the whole model, fsdp a part of
    every block. none is one process, and ddp where there are several."""
    recompute: bool = False
    """Compute what is inside the blocks of the models again for the gradient instead of keeping it: less
    memory, more time."""
    sample_every: Positive = 25
    """Steps between files of sample captions."""
    checkpoint_every: Positive = 25
    """Steps between checkpoints."""
    keep: Positive = 2
    """Checkpoints kept, the best apart."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    captioner: Annotated[Any, Component("captioners")]
    """The model that is trained."""
    data: Annotated[Source, Component("data")]
    """What it captions."""
    rewards: Mapping[str, Annotated[Any, Component("rewards")]]
    """What its captions earn, by a name of yours; `kind` is that name unless it is given.

    Empty ({}) only where `rollout.of` is references.
    """
    advantage: Annotated[Any, Component("advantages")]
    """From rewards to what each token is pushed by."""
    objective: Annotated[Any, Component("objectives")]
    """From that to the loss."""
    update: Update
    """Optimiser and batch."""
    rollout: Rollout = field(default_factory=Rollout)
    """How captions are drawn."""
    evaluate: Evaluate = field(default_factory=Evaluate)
    """What is measured on the way."""
    watch: Watch = field(default_factory=Watch)
    """What raises an alarm."""
    run: Run = field(default_factory=Run)
    """Where and how often results are written."""
    given: Given = field(default_factory=Given, metadata={"section": False}, repr=False)
    """The text and overrides it was read from."""
    settings: Mapping[str, Any] = field(
        default_factory=dict[str, Any], metadata={"section": False}, repr=False
    )
    """Every value by its dotted path, as JSON."""
    origins: Mapping[str, str] = field(
        default_factory=dict[str, str], metadata={"section": False}, repr=False
    )
    """Where each of them comes from: `default`, `FILE:LINE` or `command line`."""

    @property
    def name(self) -> str:
        """The stem of the recipe's file."""
        return Path(self.given.path).stem

    @property
    def source(self) -> str:
        """The text as given, with the overrides as comments after it."""
        lines = [f"#   {override}" for override in self.given.overrides]
        return "\n".join(
            [self.given.text.rstrip("\n"), *(["# on the command line:", *lines] if lines else []), ""]
        )

    def resolved(self) -> dict[str, dict[str, Any]]:
        """Every value with its origin, by dotted path: what a run keeps as resolved.json."""
        return {path: {"value": value, "origin": self.origins[path]} for path, value in self.settings.items()}


def load(name: str | Path, overrides: Sequence[str] = (), *, complete: bool = True) -> Recipe:
    """Read and check a recipe.

    Args:
        name: A YAML file, or the name of a shipped recipe: `tiny/vlrm`, `recipes/tiny/vlrm.yaml`.
        overrides: `section.setting=value` with the value as YAML; `rewards.NAME=null` removes a reward;
            another `kind` starts its section afresh.
        complete: Refuse a recipe that misses values. Otherwise what misses them is None in it (its `data`,
            most often), and they stand as `???` among its settings: enough to show it or to use its rewards.

    Returns:
        The recipe; its components are built, nothing is loaded.

    Raises:
        UserError: Everything that is wrong with it, one line each: `path: value: what is wrong`.
    """
    return _build(read(paths.recipe(str(name)), overrides), complete=complete)


def load_resolved(path: Path) -> Recipe:
    """The recipe of a run, from its resolved.json.

    Raises:
        UserError: The file is missing or is not of this version.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file: is {path.parent} the folder of a run?")
    try:
        rows: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf8"))
        tree = nested({key: row["value"] for key, row in rows.items()})
        origins = {key: str(row["origin"]) for key, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is not as limner writes it: {error!r}") from error
    given = Given(str(path), "", (), tree, origins)
    return _build(given, complete=True)


def decoding(overrides: Sequence[str], base: Decoding = PUBLISHED) -> Decoding:
    """Decoding settings from `setting=value` on top of others.

    Raises:
        UserError: Everything that is wrong with them, one line each.
    """
    return _section(Decoding, {}, overrides, title="decoding settings", base=base)


def asking(
    answerer: str, overrides: Sequence[str] = (), *, model: str = "", key_env: str | None = None
) -> Asking:
    """Who answers questions about captions, as `evaluate.qa` holds it.

    Args:
        answerer: A causal language model, or the address of an endpoint.
        overrides: `setting=value` for the others.
        model: The answerer's name at its endpoint.
        key_env: Name of the environment variable with the endpoint's key.

    Raises:
        UserError: Everything that is wrong with them, one line each.
    """
    who: dict[str, Any] = {"path": answerer}
    if answerer.startswith(("http://", "https://")):
        if not model:
            raise UserError(f"{answerer}: name the model there: --answerer-model NAME")
        who = {"endpoint": {"base_url": answerer, "model": model, "key_env": key_env}}
    return _section(Asking, who, overrides, title=f"settings of the answerer {answerer}")


def _section(
    cls: type, given: dict[str, Any], overrides: Sequence[str], *, title: str, base: Any = None
) -> Any:
    tree, origins, typed = put(given, {}, overrides)
    builder = Builder(origins, typed, complete=True)
    built = builder.build(cls, tree, base)
    if builder.errors:
        raise UserError("\n".join([f"{title}:", *builder.errors]))
    return built


def _build(given: Given, *, complete: bool) -> Recipe:
    builder = Builder(given.origins, given.typed, complete=complete)
    recipe = builder.build(Recipe, given.tree)
    errors = builder.errors or ([] if builder.missing else _contradictions(recipe))
    if errors:
        raise UserError("\n".join([f"{given.path}: {len(errors)} to mend:", *errors]))
    return replace(recipe, given=given, settings=builder.settings, origins=builder.origins)


def _contradictions(recipe: Recipe) -> list[str]:
    """What is wrong between sections that are right by themselves."""
    errors: list[str] = []
    captions, group = recipe.update.captions, recipe.rollout.captions
    if not recipe.rewards and recipe.rollout.of == "policy":
        errors.append("rewards: {}: empty: name at least one reward")
    least = recipe.advantage.least_captions
    if group < least:
        errors.append(
            f"rollout.captions: {group}: this advantage compares at least {least} captions a sample"
        )
    if recipe.evaluate.patience is not None and recipe.evaluate.best is None:
        errors.append(
            f"evaluate.patience: {recipe.evaluate.patience}: needs evaluate.best, the measure that must rise"
        )
    errors += [
        f"watch.alarms.{key}: this run logs no {key}; see Logged keys in docs/metrics.md"
        for key in recipe.watch.unknown(recipe.rewards)
    ]
    if recipe.run.recompute and getattr(recipe.captioner, "lora_dropout", 0):
        errors.append(
            "run.recompute: true: draws other dropout the second time; set captioner.lora_dropout=0"
        )
    if captions % group:
        errors.append(
            f"update.captions: {captions}: must be a multiple of rollout.captions, which is {group}"
        )
    return errors
