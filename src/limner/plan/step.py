"""The parts of a training step without values: the trainer's own, on a recipe's models without weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image

from limner.captioners.adapters import is_adapter
from limner.captioners.base import Generated, Policy
from limner.config import Recipe
from limner.critic import Critic
from limner.decoding import Decoding
from limner.devices import torch_dtype
from limner.learner import Learner
from limner.plan import models
from limner.plan.attention import Kernels
from limner.plan.judges import Judges, bytes_of
from limner.plan.shadow import META, Ledger, Phase, Shadow
from limner.plan.writing import Choice, leaping
from limner.rewards.base import NoInputs
from limner.rollout import roll_out
from limner.score import combine
from limner.sharding import blocks, recompute
from limner.types import ModelInputs, Part, Rollouts, Sample, Targets, Words
from limner.update import Optimiser


@dataclass(frozen=True)
class Setting:
    """What a step is of, beside the recipe."""

    image: tuple[int, int] = (1024, 768)
    """Width and height of a picture in pixels, before the captioner's own processor."""
    frames: int = 1
    """Pictures a sample."""
    tokens: int | None = None
    """Tokens of every caption; None: as many as `rollout.max_new_tokens` allows."""
    gpu: bool = True
    """Whether the optimiser changes all parameters at once, as torch's does on a GPU."""


class Step:
    """A recipe's parts without weights. B samples of G captions; N = B * G."""

    def __init__(self, recipe: Recipe, setting: Setting):
        """Build captioner, critic, rewards and optimisers as `limner.train.Trainer` does."""
        self.recipe, self.setting = recipe, setting
        self.ledger = Ledger()
        self.kernels = Kernels(self.ledger)
        self._shadow = Shadow(self.ledger, token=models.TOKEN)
        self.caches: list[int] = []
        """Bytes of the keys and values of each generation at its end."""
        self.group = recipe.rollout.captions
        self.tokens = setting.tokens or recipe.rollout.max_new_tokens
        update = recipe.update
        with self.shadow(), torch.device(META):
            policy: Any = models.captioner(recipe.captioner, torch_dtype(recipe.run.dtype))
            self.policy: Policy[Any] = policy
            self._hold(policy)
            self.start = {name: p.detach().clone() for name, p in policy.trained().items()}
            self.critic = Critic.build(
                policy, recipe.advantage, micro_batch=update.micro_batch, generator_seed=0
            )
            if recipe.run.recompute:
                for block in blocks(policy):
                    block.forward = self._seen(block.forward)
                recompute(policy)
            self.optimisers = {"policy": Optimiser(policy.trained(), update), **self.critic.optimise(update)}
            optimiser = self.optimisers["policy"]
            self.learner = Learner(policy, recipe.objective, optimiser, micro_batch=update.micro_batch)
            self.judges = Judges(recipe, policy)
            for model in self.judges.models.values():
                self._hold(model)
        with self.shadow():
            for optimiser in self.optimisers.values():
                optimiser.torch.param_groups[0]["foreach"] = setting.gpu
                for parameter in optimiser.parameters.values():
                    parameter.grad = torch.zeros_like(parameter)
                optimiser.step(0)  # from here on there are moments, and the gradients of the step before
        self._replace(policy)

    @contextlib.contextmanager
    def shadow(self) -> Iterator[None]:
        """The mode in which all of it runs."""
        with self._shadow, self.kernels:
            yield

    def terms(self) -> dict[str, int]:
        """Bytes that are held from step to step, by what they are for."""
        trained, value = self.policy.trained(), self.critic.parameters()
        own, heads = (sum(each.nbytes for each in held.values()) for held in (trained, value))
        counted = {each.untyped_storage()._cdata for each in (*trained.values(), *value.values())}
        out = {
            "frozen weights": bytes_of({"all": self.policy.model}, counted)["all"],
            "trained weights": own, "gradients": own, "moments of Adam": 2 * own,
            "weights at the start": own, "value function": 4 * heads,
        }  # fmt: skip
        out |= bytes_of(self.judges.models, counted)
        return {name: size for name, size in out.items() if size}

    def write(self, captions: int, micro_batch: int) -> tuple[Rollouts, int]:
        """Roll-outs of N captions; `micro_batch` could go through with gradient at a time.

        Returns:
            They, and the bytes that are kept of them and their images until the step ends.
        """
        recipe, before = self.recipe, self.ledger.now
        self.ledger.phases.clear()
        self.caches.clear()
        needs: frozenset[str] = frozenset().union(*(reward.needs for reward in recipe.rewards.values()))
        with self.shadow(), self.ledger.phase("roll-outs"):
            made = roll_out(
                self.policy, self._samples(captions), recipe.rollout, captions=self.group,
                of=recipe.rollout.of, micro_batch=micro_batch, generator=Choice(models.TOKEN),
                needs=needs | recipe.advantage.needs | recipe.objective.needs, start=self.start,
            )  # fmt: skip
        return made, self.ledger.now - before

    def judge(self, name: str, captions: int) -> Phase:
        """One reward of N captions."""
        score = self.judges.rewards[name]
        with self.shadow(), torch.no_grad():
            samples = self._samples(captions)
            inputs: Any = NoInputs(len(samples))
            if self.judges.reads_features(score):
                inputs = self._encode(samples)
            rollouts = self._rollouts(samples, inputs, self._made(captions, self.tokens))
            return self._done(f"reward {name}", lambda: score(rollouts))

    def learn(self, rollouts: Rollouts, micro_batch: int, *, value: bool = False) -> Phase:
        """The gradient of the policy's loss, or of the value function's, over roll-outs that are kept."""
        self.learner.micro_batch = self.critic.micro_batch = micro_batch
        with self.shadow():
            parts = {name: Part(torch.zeros(len(rollouts.tokens))) for name in self.recipe.rewards}
            scores = combine(rollouts, parts, dict.fromkeys(parts, 1.0), {})
            if value:
                return self._done("value gradient", lambda: self.critic.backward(rollouts, scores))
            targets = Targets(scores.rewards, rollouts.caption_mask)
            return self._done("policy gradient", lambda: self.learner.backward(rollouts, targets))

    def update(self) -> Phase:
        """The optimisers' step."""

        def step() -> None:
            for optimiser in self.optimisers.values():
                optimiser.clip()
                optimiser.step(1)

        with self.shadow():
            return self._done("optimiser", step)

    def evaluate(self, samples: int) -> Phase:
        """One batch of the evaluation, and the models that measure."""

        def measure() -> None:
            chosen = self._samples(samples * self.group)
            inputs = self._encode(chosen)
            made = self._written(inputs, self.recipe.evaluate.decoding)
            for score in self.judges.measures.values():
                score(self._rollouts(chosen, inputs, made))

        with self.shadow(), torch.no_grad():
            return self._done("evaluation", measure)

    def _done(self, name: str, work: Callable[[], object]) -> Phase:
        self.ledger.phases.pop(name, None)
        with self.ledger.phase(name) as phase:
            work()
        return phase

    def _hold(self, module: Any) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            self.ledger.hold(tensor)

    def _replace(self, policy: Any) -> None:
        """Put what needs no tokenizer and no values in the place of some of the captioner's methods."""
        self._encode, self._generate = policy.encode, policy.generate
        policy.encode, policy.generate = self._encoded, self._written
        policy.tokenised, policy.rollouts = self._tokenised, self._rollouts
        policy.lm_logprobs = self._apart(policy.lm_logprobs)
        policy.logprobs = self._apart(policy.logprobs)
        if hasattr(policy, "_precision"):
            policy._precision = self._precision

    def _samples(self, captions: int) -> list[Sample]:
        picture = Image.new("RGB", self.setting.image)
        media = (picture,) * self.setting.frames
        return [Sample(str(n), media, ("word",)) for n in range(captions // self.group)]

    def _apart(self, method: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """A method whose memory is counted apart where it has no gradient."""

        def scored(*args: Any, **kwargs: Any) -> torch.Tensor:
            if torch.is_grad_enabled():
                return method(*args, **kwargs)
            with self.ledger.phase("scored"):
                return method(*args, **kwargs)

        return scored

    def _encoded(self, samples: Sequence[Sample], prompt: str | None = None) -> ModelInputs:
        with self.ledger.phase("images"):
            return self._encode(samples, prompt)

    def _written(
        self, inputs: ModelInputs, decoding: Decoding, *, captions: int = 1, generator: Any = None
    ) -> Generated:
        """Captions of one length; beams are reckoned as that many captions."""
        training = decoding.max_new_tokens == self.recipe.rollout.max_new_tokens
        longest = self.tokens if training else decoding.max_new_tokens
        plain = replace(decoding, num_beams=1, max_new_tokens=longest, min_new_tokens=0)
        with self.ledger.phase("generation"), leaping(self.ledger, self.caches):
            lines = max(captions, decoding.num_beams)
            self._generate(inputs, plain, captions=lines, generator=generator)
        tokens, mask = self._made(len(inputs) * captions, longest)
        return Generated(tokens, mask, torch.zeros(tokens.shape), torch.ones(len(tokens), dtype=torch.bool))

    def _tokenised(
        self, texts: Sequence[str], longest: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._made(len(texts), min(self.tokens, longest or self.tokens))

    def _made(self, rows: int, longest: int) -> Any:
        """Tokens and mask (rows, longest)."""
        tokens = torch.full((rows, longest), models.TOKEN)
        return tokens, torch.ones(tokens.shape, dtype=torch.bool)

    def _rollouts(self, samples: Sequence[Sample], inputs: Any, made: Any) -> Rollouts:
        tokens, mask = (made.tokens, made.caption_mask) if isinstance(made, Generated) else made
        rows, longest = tokens.shape
        return Rollouts(
            tuple(samples), inputs, tokens, mask, torch.zeros(tokens.shape),
            torch.ones(rows, dtype=torch.bool), ("word " * longest,) * rows, (Words((), ()),) * rows,
        )  # fmt: skip

    def _seen(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A block that is computed again on the way back, where torch has left the modes of the way there."""

        def run(*args: Any, **kwargs: Any) -> Any:
            half = self.kernels.dtype is None and hasattr(self.policy, "_precision")
            with self.kernels, self._precision() if half else contextlib.nullcontext():
                return forward(*args, **kwargs)

        return run

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """As `PrefixedPolicy` has it, for numbers without values."""
        policy: Any = self.policy
        whole = any(p.requires_grad and not is_adapter(n) for n, p in policy.model.named_parameters())
        if policy.dtype == torch.float32 or not whole:
            return contextlib.nullcontext()
        return self.kernels.half(policy.dtype)
