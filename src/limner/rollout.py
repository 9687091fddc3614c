"""Roll-outs: captions of the policy or of people, with what rewards and advantages ask for; no gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Literal

import torch

from limner.captioners.base import Generated, Policy
from limner.captioners.stepwise import SampleDraws
from limner.decoding import Decoding
from limner.types import ModelInputs, Rollouts, Sample

NO_GRADIENT = 4
"""Rows that go through at once for each that goes through with gradient: nothing is kept for a way back."""


@torch.no_grad()
def roll_out(
    policy: Policy,
    samples: Sequence[Sample],
    decoding: Decoding,
    *,
    captions: int,
    micro_batch: int,
    needs: frozenset[str],
    of: Literal["policy", "references"] = "policy",
    generator: torch.Generator | SampleDraws | None = None,
    step: int = 0,
    start: Mapping[str, torch.Tensor] | None = None,
) -> Rollouts:
    """Generate G captions of B samples, or draw them from the references.

    Args:
        policy: the captioner.
        samples: B samples.
        decoding: how tokens are chosen.
        captions: G.
        micro_batch: rows that memory takes with gradient; a generation holds `NO_GRADIENT` times as many.
        needs: what to compute beside the captions: "lm_logprobs", "greedy", "reference_logprobs".
        of: whose captions: "references" takes G of each sample's references, see `drawn`.
        generator: the random numbers of the sampling: one stream, or each sample's own.
        step: of the run, for rewards that draw at random.
        start: the trained parameters as the run started, where "reference_logprobs" are needed.

    Returns:
        N = B * G roll-outs.
    """

    def completed(chosen: Sequence[Sample], inputs: ModelInputs, made: Generated) -> Rollouts:
        return policy.rollouts(chosen, inputs, made).replace(step=step)

    at_once = NO_GRADIENT * micro_batch
    together = max(1, at_once // captions)
    parts = []
    for place in range(0, len(samples), together):
        here = slice(place, place + together)
        chosen, chance = samples[here], generator
        if isinstance(generator, SampleDraws):
            chance = generator.part(here)
        inputs = policy.encode(chosen)
        if of == "references":
            made = written(policy, drawn(chosen, captions, chance), longest=decoding.max_new_tokens)
        else:
            tokens = chance.rows(captions) if isinstance(chance, SampleDraws) else chance
            made = policy.generate(inputs, decoding, captions=captions, generator=tokens)
        rollouts = completed(chosen, inputs, made)
        if "greedy" in needs:
            greedy = completed(chosen, inputs, policy.generate(inputs, decoding.greedy()))
            rollouts = rollouts.replace(greedy=greedy)
        parts.append(rollouts)
    rollouts = concat(parts)
    if "lm_logprobs" in needs:
        rollouts = with_lm_logprobs(policy, rollouts, at_once)
    if "reference_logprobs" in needs:
        rollouts = rollouts.replace(reference_logprobs=reference_logprobs(policy, rollouts, at_once, start))
    return rollouts


def with_lm_logprobs(policy: Policy, rollouts: Rollouts, size: int) -> Rollouts:
    """The roll-outs, and their greedy captions, with `lm_logprobs`; `size` rows go through at once."""
    found = by_length(rollouts, size, lambda part: policy.lm_logprobs(part.tokens, part.caption_mask))
    greedy = None if rollouts.greedy is None else with_lm_logprobs(policy, rollouts.greedy, size)
    return rollouts.replace(lm_logprobs=found, greedy=greedy)


@torch.no_grad()
def reference_logprobs(
    policy: Policy, rollouts: Rollouts, size: int, start: Mapping[str, torch.Tensor] | None
) -> torch.Tensor:
    """(N, T) log-probabilities with the trained parameters `start`; `size` rows go through at once."""
    if start is None:
        raise ValueError('"reference_logprobs" are needed: give the parameters to compute them with')
    with policy.at(start):
        return by_length(rollouts, size, lambda p: policy.logprobs(p.inputs, p.tokens, p.caption_mask))


def by_length(rollouts: Rollouts, size: int, score: Callable[[Rollouts], torch.Tensor]) -> torch.Tensor:
    """(N, T) float32 of what scores `micro_batches` of `size` rows; 0 beyond a part's longest caption."""
    out = torch.zeros(rollouts.tokens.shape, device=rollouts.tokens.device)
    for rows, part in micro_batches(rollouts, size):
        out[rows, : part.tokens.shape[1]] = score(part)
    return out


def drawn(
    samples: Sequence[Sample], captions: int, generator: torch.Generator | SampleDraws | None
) -> list[str]:
    """G references of each sample, drawn anew each time.

    None is taken twice before all were taken once. A sample without references gives empty texts.

    Args:
        samples: B samples.
        captions: G.
        generator: the random numbers.

    Returns:
        N = B * G texts.
    """
    texts: list[str] = []
    for place, sample in enumerate(samples):
        known = sample.references or ("",)
        chance = generator.sample(place) if isinstance(generator, SampleDraws) else generator
        device = "cpu" if chance is None else chance.device
        order = torch.randperm(len(known), generator=chance, device=device).tolist()
        texts += islice(cycle(known[place] for place in order), captions)
    return texts


def written(policy: Policy, texts: Sequence[str], *, longest: int) -> Generated:
    """Written captions as if the policy had generated them; a blank one has no token at all.

    Args:
        policy: the captioner.
        texts: N captions.
        longest: tokens a caption at most, the end-of-sequence token included; longer ones are cut.

    Returns:
        N captions, whose log-probabilities when they were made are NaN: the policy did not make them.
    """
    tokens, caption_mask = policy.tokenised(texts, longest=longest)
    blank = torch.tensor([not text.strip() for text in texts], device=tokens.device)
    caption_mask = caption_mask & ~blank[:, None]
    unknown = torch.zeros(tokens.shape, device=tokens.device).masked_fill(caption_mask, float("nan"))
    last = (caption_mask.sum(1) - 1).clamp(min=0)
    ends = torch.as_tensor(policy.language_model.generation_config.eos_token_id, device=tokens.device)
    ended = torch.isin(tokens.gather(1, last[:, None])[:, 0], ends)
    return Generated(tokens, caption_mask, unknown, ended & ~blank)


def concat(parts: Sequence[Rollouts]) -> Rollouts:
    """All rows of several roll-outs, padded to the longest caption."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.tokens.shape[1] for part in parts)

    def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([torch.nn.functional.pad(t, (0, width - t.shape[1])) for t in tensors])

    def joined_if_all(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        kept = [t for t in tensors if t is not None]
        return joined(kept) if len(kept) == len(tensors) else None

    inputs = type(parts[0].inputs).concat([part.inputs for part in parts])
    greedy = [part.greedy for part in parts if part.greedy is not None]
    return Rollouts(
        samples=tuple(s for part in parts for s in part.samples),
        inputs=inputs,
        tokens=joined([p.tokens for p in parts]),
        caption_mask=joined([p.caption_mask for p in parts]),
        logprobs=joined([p.logprobs for p in parts]),
        ended=torch.cat([p.ended for p in parts]),
        texts=tuple(t for part in parts for t in part.texts),
        words=tuple(w for part in parts for w in part.words),
        lm_logprobs=joined_if_all([p.lm_logprobs for p in parts]),
        reference_logprobs=joined_if_all([p.reference_logprobs for p in parts]),
        values=joined_if_all([p.values for p in parts]),
        greedy=concat(greedy).replace(inputs=inputs) if greedy else None,
        step=parts[0].step,
    )


def micro_batches(rollouts: Rollouts, size: int) -> Iterator[tuple[torch.Tensor, Rollouts]]:
    """Split roll-outs by samples of like caption length, so that little is computed on padding.

    The parts have no greedy captions: nothing is learnt from those.

    Args:
        rollouts: N rows.
        size: rows a micro-batch (at least the G captions of one sample).

    Yields:
        The row numbers (n,) and those rows, cut to their longest caption.
    """
    longest = rollouts.lengths.view(-1, rollouts.captions).amax(1)
    order = longest.argsort(stable=True)
    for chosen in order.split(max(1, size // rollouts.captions)):
        yield part_of(rollouts, chosen)


def part_of(rollouts: Rollouts, chosen: torch.Tensor) -> tuple[torch.Tensor, Rollouts]:
    """The row numbers (n,) of the chosen samples (int64 indices), and those rows, without greedy captions.

    The rows are cut to their longest caption.
    """
    group = rollouts.captions
    rows = (chosen[:, None] * group + torch.arange(group, device=chosen.device)).flatten()
    width = max(1, int(rollouts.lengths[rows].max()))

    def cut(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor[rows, :width]

    part = Rollouts(
        samples=tuple(rollouts.samples[i] for i in chosen.tolist()),
        inputs=rollouts.inputs.select(chosen),
        tokens=rollouts.tokens[rows, :width],
        caption_mask=rollouts.caption_mask[rows, :width],
        logprobs=rollouts.logprobs[rows, :width],
        ended=rollouts.ended[rows],
        texts=tuple(rollouts.texts[i] for i in rows.tolist()),
        words=tuple(rollouts.words[i] for i in rows.tolist()),
        lm_logprobs=cut(rollouts.lm_logprobs),
        reference_logprobs=cut(rollouts.reference_logprobs),
        values=cut(rollouts.values),
        step=rollouts.step,
    )
    return rows, part
