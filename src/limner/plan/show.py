"""A plan as people and programs read it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from limner.plan.fit import Plan, Use
from limner.plan.machines import CALL, COMPUTING, GPUS, MOVING, USABLE, gpu

WIDTH = 150
CALLED = {"none": "one GPU", "ddp": "ddp", "fsdp": "fsdp"}


@dataclass(frozen=True)
class Found:
    """What fits, for each way to share the weights."""

    plan: Plan
    gpu: str
    memory: int
    """Bytes of a GPU."""
    uses: tuple[Use, ...]
    """The largest micro-batch that fits, or one sample's, for each way."""
    own: Use
    """The recipe's own micro-batch, shared in the way that is best."""

    @classmethod
    def of(cls, plan: Plan, name: str, memory: int) -> Found:
        """Try every way."""
        card = gpu(name)
        uses = tuple(
            plan.largest(memory, way, card) for way in (("none",) if plan.gpus == 1 else ("ddp", "fsdp"))
        )
        best = next((use for use in uses if use.peak <= USABLE * memory), uses[-1])
        return cls(plan, name, memory, uses, plan.use(plan.recipe.update.micro_batch, best.sharding, card))

    def fits(self, use: Use) -> bool:
        """Whether it does."""
        return use.peak <= USABLE * self.memory

    @property
    def best(self) -> Use | None:
        """The first way that fits: the simplest."""
        return next((use for use in self.uses if self.fits(use)), None)

    def text(self) -> str:
        """Tables in Markdown, and what to do."""
        return "\n".join(
            [*self._head(), "", self._memory(), *self._advice(), "", self._time(), *self._notes(), ""]
        )

    def plain(self) -> dict[str, Any]:
        """For programs: bytes and seconds."""
        best, plan = self.best, self.plan
        every = [{**asdict(use), "peak": use.peak, "fits": self.fits(use)} for use in (*self.uses, self.own)]
        return {
            "recipe": plan.recipe.name, "gpus": plan.gpus, "nodes": plan.nodes, "gpu": self.gpu,
            "memory": self.memory, "captions": plan.recipe.update.captions, "tokens": plan.step.tokens,
            "fits": best is not None,
            "micro_batch": None if best is None else best.micro_batch,
            "sharding": None if best is None else best.sharding,
            "seconds": None if best is None else sum(best.seconds.values()),
            "uses": every[:-1],
            "own": every[-1],
        }  # fmt: skip

    def _head(self) -> list[str]:
        plan, recipe = self.plan, self.plan.recipe
        wide, high = plan.setting.image
        where = f"{plan.gpus} x {self.gpu}" + (f" on {plan.nodes} nodes" if plan.nodes > 1 else "")
        return [
            f"{recipe.name} on {where}, {self.memory / 1e9:g} GB each: predicted, not measured.",
            f"{recipe.update.captions:,} captions a step, {plan.captions:,} a GPU, {plan.step.tokens} tokens "
            f"each; pictures of {wide} x {high}"
            + (f", {plan.setting.frames} a sample." if plan.setting.frames > 1 else "."),
        ]

    def _memory(self) -> str:
        uses = self.uses
        table = _table("GB of a GPU", *(CALLED[use.sharding] for use in uses))
        for name in uses[0].held:
            table.add_row(name, *(_gb(use.held[name]) for use in uses))
        for name in uses[0].parts:
            table.add_row(f"+ {name}", *(_gb(use.parts[name]) for use in uses))
        for name in uses[0].of:
            table.add_row(f"in these: {name}", *(_gb(use.of[name]) for use in uses))
        table.add_row("at most at once", *(_gb(use.peak) for use in uses))
        table.add_row(
            "largest micro-batch", *(str(u.micro_batch) if self.fits(u) else "none fits" for u in uses)
        )
        return _printed(table)

    def _advice(self) -> Iterable[str]:
        recipe, best, own = self.plan.recipe, self.best, self.own
        mine, takes = f"The recipe's own update.micro_batch={own.micro_batch}", _gb(own.peak)
        yield (
            "The parts of a step (+) come one after another; "
            f"{USABLE:.0%} of {self.memory / 1e9:g} GB can be filled."
        )
        if best is None:
            least = min(self.uses, key=lambda use: use.peak)
            always = _gb(sum(least.held.values()))
            yield (
                f"Not even one sample at a time fits: {least.worst} takes {_gb(least.parts[least.worst])} GB "
                f"beyond the {always} GB that are always held. What helps: run.recompute=true, a smaller "
                "rollout.max_new_tokens, rollout.captions or picture, lora(...) in captioner.train, "
                "more GPUs."
            )
            return
        shared = "" if self.plan.gpus == 1 else f" run.sharding={best.sharding}"
        yield f"Use: update.micro_batch={best.micro_batch}{shared}"
        if not self.fits(own):
            yield f"{mine} does not fit: it takes {takes} GB."
        elif best.micro_batch != recipe.update.micro_batch:
            yield f"{mine} fits too: it takes {takes} GB."

    def _time(self) -> str:
        uses = self.uses
        table = _table("seconds of a step", *(CALLED[use.sharding] for use in uses))
        for name in uses[0].seconds:
            table.add_row(name, *(f"{use.seconds[name]:.1f}" for use in uses))
        table.add_row("all", *(f"{sum(use.seconds.values()):.1f}" for use in uses))
        return _printed(table)

    def _notes(self) -> Iterable[str]:
        card = GPUS[self.gpu.lower()]
        yield (
            f"Roofline of {card.source}: {card.half / 1e12:g} TFLOP/s in 16 bits and "
            f"{card.single / 1e12:g} in float32, of which {COMPUTING:.0%} are reached; "
            f"{card.bandwidth / 1e12:g} TB/s, {MOVING:.0%}; at least "
            f"{CALL * 1e6:g} microseconds an operation."
        )
        unknown = self.plan.step.judges.unknown
        if unknown:
            yield f"Not counted: what the rewards {', '.join(unknown)} load."


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}" if size < 9.995e9 else f"{size / 1e9:.1f}"


def _table(*columns: str) -> Table:
    table = Table(box=MARKDOWN)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def _printed(table: Table) -> str:
    out = Console(file=io.StringIO(), width=WIDTH)
    out.print(table)
    text: Callable[[], str] = out.file.getvalue  # type: ignore[attr-defined]
    return "\n".join(line.strip() for line in text().splitlines() if line.strip()) + "\n"
