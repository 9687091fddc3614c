"""The service's engine, which also looks closely: two captioners, every token's probability, the rewards."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from limner.answering.draw import number
from limner.captioners.base import Policy
from limner.captioners.stepwise import Stepwise
from limner.page.results import Side, Studied, Token, Told
from limner.page.rewards import Scorer
from limner.rollout import part_of, with_lm_logprobs
from limner.serve.batching import Ask, Job, Written
from limner.serve.engine import Engine
from limner.serve.metrics import Metrics
from limner.types import ModelInputs, Rollouts, Sample


@dataclass(frozen=True)
class Study(Ask):
    """A picture to be looked at closely. `captions` are written by each captioner."""

    references: tuple[str, ...] = ()
    """What people say of it, where that is known."""
    extra: Mapping[str, object] = field(default_factory=dict[str, object])
    """What else a reward may ask for by name."""

    @property
    def kind(self) -> Hashable:
        """Looks of one kind go together, and never with other requests."""
        return Study, self.prompt, self.decoding, self.captions, len(self.media)


class _Left(Exception):
    """Nobody waits for what is being written."""


class Studio(Engine):
    """Runs one or two captioners and the rewards; called from one thread at a time."""

    def __init__(
        self, named: tuple[str, Policy], metrics: Metrics, *, other: tuple[str, Policy] | None, scorer: Scorer
    ):
        """With loaded captioners.

        Args:
            named: the served captioner with its name.
            metrics: what is counted.
            other: the captioner that it is compared with.
            scorer: the rewards, loaded with the served captioner.
        """
        super().__init__(named[1], metrics)
        self.scorer = scorer
        self.sides = (*(() if other is None else ((other[0], other[1].eval()),)), named)

    def _generate(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of one kind, looks among them."""
        if isinstance(jobs[0].ask, Study):
            self._study(jobs)
        else:
            super()._generate(jobs)

    @torch.inference_mode()
    def _study(self, jobs: Sequence[Job]) -> None:
        """Look at the pictures of jobs of one kind."""
        asks = [job.ask for job in jobs if isinstance(job.ask, Study)]
        samples = [
            Sample(f"page-{place}", ask.media, ask.references, ask.extra) for place, ask in enumerate(asks)
        ]
        inputs = self.policy.encode(samples, asks[0].prompt)

        def watch(*_: object) -> None:
            if all(job.cancelled for job in jobs):
                raise _Left

        try:
            told: list[list[tuple[Told, ...]]] = []
            for _, policy in self.sides:
                draws = Stepwise(_seeds(asks), watch)
                told.append(list(self._told(policy, inputs, samples, draws, asks[0])))
                watch()
        except _Left:
            return
        names = [name for name, _ in self.sides]
        for place, job in enumerate(jobs):
            sides = tuple(Side(name, rows[place]) for name, rows in zip(names, told, strict=True))
            mine = tuple(Written(each.text, len(each.tokens), each.ended) for each in sides[-1].captions)
            job.send(Studied(mine, 0, sides))
            self.metrics.captions.inc(len(told) * job.ask.captions)
            self.metrics.tokens.inc(sum(len(each.tokens) for side in sides for each in side.captions))

    def _told(
        self, policy: Policy, inputs: ModelInputs, samples: Sequence[Sample], draws: Stepwise, ask: Study
    ) -> Iterator[tuple[Told, ...]]:
        """The captions of one captioner, sample by sample.

        Args:
            policy: who writes.
            inputs: of the served captioner, whose image features rewards may share.
            samples: B samples.
            draws: the random numbers.
            ask: how captions are written; the same for all.
        """
        own = inputs if policy is self.policy else policy.encode(samples, ask.prompt)
        made = policy.generate(own, ask.decoding, captions=ask.captions, generator=draws)
        rollouts = policy.rollouts(samples, inputs, made)
        if "lm_logprobs" in self.scorer.needs:
            rollouts = with_lm_logprobs(policy, rollouts, len(rollouts.tokens))
        for place in range(len(samples)):
            _, rows = part_of(rollouts, torch.tensor([place], device=rollouts.tokens.device))
            yield self._scored(policy, rows)

    def _scored(self, policy: Policy, rollouts: Rollouts) -> tuple[Told, ...]:
        """The captions of one sample with what they earn."""
        scored = self.scorer(rollouts)
        told: list[Told] = []
        for row, text in enumerate(rollouts.texts):
            kept = rollouts.caption_mask[row]
            columns = rollouts.tokens[row], rollouts.logprobs[row], scored.returns[row]
            cells = zip(*(column[kept].tolist() for column in columns), strict=True)
            tokens = tuple(Token(str(policy.tokenizer.decode([id])), *numbers) for id, *numbers in cells)
            ended = bool(rollouts.ended[row])
            told.append(Told(text, tokens, ended, scored.parts[row], scored.totals[row]))
        return tuple(told)


def _seeds(asks: Sequence[Ask]) -> list[int]:
    """Of every row, as the service draws them."""
    return [number(ask.seed, k) for ask in asks for k in range(ask.captions)]
