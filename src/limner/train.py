"""The loop: data -> roll-outs -> rewards -> advantages -> loss -> update -> report, whatever the method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from limner import before_after, checkpoint, distributed, report, watch
from limner.alarms import Alarms
from limner.answering.draw import number
from limner.captioners.base import Policy, trained_table
from limner.captioners.stepwise import SampleDraws
from limner.checkpoint import Progress
from limner.critic import Critic
from limner.data.batches import Batches
from limner.data.rejects import RejectLog
from limner.data.shared import SharedBatches
from limner.devices import keep_freed_memory, torch_device, torch_dtype
from limner.errors import UserError
from limner.learner import Learner, Updates
from limner.progress import Show
from limner.rollout import roll_out
from limner.run import Clock, Run, SilentRun, new_folder, read_metrics
from limner.score import Judge
from limner.selection import Evaluator
from limner.sharding import Weights
from limner.types import Mean, Rollouts, Scores, Targets
from limner.update import Optimiser

if TYPE_CHECKING:
    from limner.config import Recipe


def train(recipe: Recipe, *, resume: Path | None = None) -> Path:
    """Run a recipe; each of several ranks calls this, and rank 0 writes.

    Args:
        recipe: what to run.
        resume: a run directory to go on with; its last whole checkpoint is taken up.

    Returns:
        The run directory.

    Raises:
        UserError: something in the recipe cannot be used, or the run stopped on steps that were not finite.
    """
    with distributed.ranks(recipe) as recipe:
        trainer = Trainer(recipe, distributed.meet(lambda: resume or new_folder(recipe)))
        try:
            trainer.console.print(trained_table(trainer.policy))
            if trainer.progress.step == 0:
                trainer.measure("before")
            with Show(recipe, trainer.progress, trainer.console) as show:
                while not trainer.progress.over(steps=recipe.update.steps, patience=recipe.evaluate.patience):
                    show.step(trainer.step())
            for key in trainer.alarms.never:
                trainer.console.print(f"watch.alarms.{key}: this run never logged {key}", markup=False)
        finally:
            trainer.close()
        distributed.wait()  # rank 0 may still be writing the last checkpoint
        before_after.best(trainer.policy, trainer.optimisers["policy"], trainer.folder)
        trainer.measure("after")
        distributed.alone(report.write, trainer.folder)
        return trainer.folder


class Trainer:
    """One run: its parts, built in the order in which they are used, and its step."""

    def __init__(self, recipe: Recipe, folder: Path):
        """Load everything; take up the last checkpoint of the folder, where there is one."""
        self.recipe, self.folder, update = recipe, folder, recipe.update
        self.console = Console(stderr=True, quiet=not distributed.first())
        len(recipe.data)  # an empty folder is found before the models are loaded
        device, dtype = torch_device(recipe.run.device), torch_dtype(recipe.run.dtype)
        if device.type == "cpu":
            keep_freed_memory()
        self.policy: Policy = recipe.captioner.load(device=device, dtype=dtype)
        self.critic = Critic.build(
            self.policy, recipe.advantage, micro_batch=update.micro_batch, generator_seed=recipe.run.seed
        )
        self.weights = Weights(recipe.run, self.policy, self.critic.head)
        self.start = {name: p.detach().clone() for name, p in self.policy.trained().items()}
        optimiser = Optimiser(self.policy.trained(), update)
        self.optimisers = {"policy": optimiser, **self.critic.optimise(update)}
        learner = Learner(self.policy, recipe.objective, optimiser, micro_batch=update.micro_batch)
        self.updates = Updates(learner, self.critic, self.optimisers, passes=update.passes)
        found = checkpoint.steps(folder / "checkpoints")
        self.progress = checkpoint.restore(found[-1], self.optimisers) if found else Progress()
        # A run killed between writing a checkpoint and removing the old ones left one too many.
        distributed.alone(checkpoint.prune, folder / "checkpoints", self.progress, keep=recipe.run.keep)
        with self.weights.whole():  # models that judge may share a tower with the policy, and compare weights
            self.judge = Judge.load(recipe.rewards, self.policy, data=recipe.data)
        self.needs = self.judge.needs | recipe.advantage.needs | recipe.objective.needs
        self.rejects = RejectLog(folder / "rejects.jsonl") if distributed.first() else None
        self.batches = (Batches if distributed.count() == 1 else SharedBatches)(
            recipe.data, update.captions // recipe.rollout.captions, seed=recipe.run.seed,
            position=self.progress.position, references="references" in self.needs | {recipe.rollout.of},
            rejects=self.rejects,
        )  # fmt: skip
        self.evaluator = Evaluator(recipe, self.policy) if distributed.first() else None
        self.run = (Run if distributed.first() else SilentRun)(folder, recipe, step=self.progress.step)
        self.alarms = Alarms(recipe.watch, read_metrics(folder) if distributed.first() else [])
        self.known = set(self.alarms.raised)  # a run that one of these ended was resumed all the same

    def step(self) -> dict[str, float | None]:
        """One step of the run; returns the row that was logged."""
        recipe, clock = self.recipe, Clock()
        with clock.part("data"):
            samples = self.batches.next()
        with self.weights.whole():
            with clock.part("rollout"):
                rollouts = roll_out(
                    self.policy, samples, recipe.rollout, captions=recipe.rollout.captions,
                    of=recipe.rollout.of, micro_batch=recipe.update.micro_batch,
                    needs=self.needs, generator=self._chance(), step=self.progress.step, start=self.start,
                )  # fmt: skip
            with clock.part("rewards"):
                scores = self.judge(rollouts)
        with clock.part("value"):
            rollouts, valued = self.critic.backward(rollouts, scores)
        whole = distributed.whole(rollouts, scores, self.batches.places)
        targets = whole.own(recipe.advantage(whole.rollouts, whole.scores), recipe.objective)
        looks = due(self.progress.step + 1, recipe.run.sample_every)
        with self.weights.whole(looks):
            drift = watch.drift(self.policy, self.start, rollouts, rows=recipe.update.micro_batch, due=looks)
        with clock.part("policy"):
            metrics, refused = self.updates(
                self.progress.step, rollouts, scores, targets, valued, whole=whole.scores
            )
        metrics |= distributed.summed(drift) | watch.rewards(whole.scores, whole.rollouts)
        metrics |= watch.watch(whole.rollouts, whole.scores) | clock.means()
        self.progress.step += 1
        self.progress.position = self.batches.position
        return self._report(rollouts, scores, targets, metrics, refused)

    def _report(
        self, rollouts: Rollouts, scores: Scores, targets: Targets, metrics: dict[str, Mean], refused: str
    ) -> dict[str, float | None]:
        """Evaluate, log, write samples and checkpoints when due; too many refused steps end the run."""
        step, recipe, last = self.progress.step, self.recipe, self.progress.step == self.recipe.update.steps
        metrics["refused"] = watch.flag(refused)
        metrics["rejected"] = Mean(float(self.rejects.count if self.rejects else 0), 1.0)
        if refused:
            self.console.print(f"step {step}: refused: {refused} is not finite", markup=False)
        self.progress.bad_steps = self.progress.bad_steps + 1 if refused else 0
        if self.progress.bad_steps >= recipe.update.max_bad_steps:
            raise UserError(self._stopped(refused))
        if (due(step, recipe.evaluate.every) or last) and not refused:
            with self.weights.whole():
                metrics |= distributed.alone(self._evaluate)
        metrics |= self._alarms(metrics)
        vars(self.progress).update(distributed.alone(vars, self.progress))
        last = last or bool(self.progress.stopped)
        if due(step, recipe.run.sample_every) or last:
            self.run.write_samples(step, rollouts, scores, targets, self.policy.tokenizer)
        row = self.run.log(step, metrics)  # before the checkpoint, so that no row up to it can be missing
        saves = due(step, recipe.run.checkpoint_every) or due(step, recipe.evaluate.every) or last
        if saves and not refused:
            checkpoint.save(self.folder / "checkpoints", self.progress, self.optimisers, keep=recipe.run.keep)
        return row

    def _evaluate(self) -> dict[str, Mean]:
        return {} if self.evaluator is None else self.evaluator(self.progress)

    def measure(self, name: str) -> None:
        """Measure the policy on the test samples, see `before_after`."""
        with self.weights.whole():
            distributed.alone(before_after.measure, self.recipe, self.policy, self.folder, name=name)

    def _alarms(self, metrics: dict[str, Mean]) -> dict[str, Mean]:
        """Say which numbers went beyond their limits, and end the run where that is wanted."""
        step = self.progress.step
        for raised in self.alarms({"step": step} | {name: mean.value for name, mean in metrics.items()}):
            self.console.print(f"step {step}: alarm: {raised}", markup=False, style="red")
        standing = self.alarms.raised
        self.known &= standing.keys()
        if self.recipe.watch.stop_on_alarm and not metrics["refused"].value:
            new = [raised for key, raised in standing.items() if key not in self.known]
            self.progress.stopped = "; ".join(f"alarm: {raised}" for raised in new)
        return watch.alarms(standing)

    def _stopped(self, refused: str) -> str:
        found = checkpoint.steps(self.folder / "checkpoints")
        good = f"the last good checkpoint is {found[-1]}" if found else "there is no checkpoint yet"
        return (
            f"step {self.progress.step}: {refused} is not finite, {self.progress.bad_steps} steps in a row "
            f"were refused; {good}. A lower update.lr, or run.dtype=float32, is the usual remedy"
        )

    def _chance(self) -> torch.Generator | SampleDraws:
        """Random numbers that depend on seed and step alone, so that a resumed run draws the same.

        Those of dropout, which can only be torch's own, too. Where ranks share the batch each sample has
        numbers of its own, by its place in the batch, so that any number of ranks draws the same.
        """
        seed = self.recipe.run.seed * 1_000_003 + self.progress.step
        torch.manual_seed(seed + (distributed.rank() << 32))
        if self.recipe.run.sharding == "none":
            return torch.Generator(self.policy.device).manual_seed(seed)
        return SampleDraws(tuple(number(seed, place) for place in self.batches.places))

    def close(self) -> None:
        """Stop reading and close files."""
        self.batches.close()
        self.run.close()


def due(step: int, every: int) -> bool:
    """Whether something done every so many steps is due; 0 is never."""
    return every > 0 and step % every == 0
