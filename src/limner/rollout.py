"""Roll-outs: captions sampled from the policy, with what rewards and advantages asked for; no gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from limner.captioners.base import Policy
from limner.decoding import Decoding
from limner.types import Rollouts, Sample

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
    generator: torch.Generator | None = None,
) -> Rollouts:
    """Generate G captions of B samples.

    Args:
        policy: the captioner.
        samples: B samples.
        decoding: how tokens are chosen.
        captions: G.
        micro_batch: rows that memory takes with gradient; a generation holds `NO_GRADIENT` times as many.
        needs: what to compute beside the captions: "lm_logprobs".
        generator: the random numbers of the sampling.

    Returns:
        N = B * G roll-outs.
    """
    step = max(1, NO_GRADIENT * micro_batch // captions)
    parts = []
    for start in range(0, len(samples), step):
        chosen = samples[start : start + step]
        inputs = policy.encode(chosen)
        made = policy.generate(inputs, decoding, captions=captions, generator=generator)
        rollouts = policy.rollouts(chosen, inputs, made)
        if "lm_logprobs" in needs:
            rollouts = rollouts.replace(lm_logprobs=policy.lm_logprobs(made.tokens, made.caption_mask))
        parts.append(rollouts)
    return concat(parts)


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
        values=joined_if_all([p.values for p in parts]),
    )


def micro_batches(rollouts: Rollouts, size: int) -> Iterator[tuple[torch.Tensor, Rollouts]]:
    """Split roll-outs by samples of like caption length, so that little is computed on padding.

    Args:
        rollouts: N rows.
        size: rows a micro-batch (at least the G captions of one sample).

    Yields:
        The row numbers (n,) and those rows, cut to their longest caption.
    """
    group = rollouts.captions
    longest = rollouts.lengths.view(-1, group).amax(1)
    order = longest.argsort(stable=True)
    for chosen in order.split(max(1, size // group)):
        rows = (chosen[:, None] * group + torch.arange(group, device=chosen.device)).flatten()
        width = int(longest[chosen].max())

        def cut(
            tensor: torch.Tensor | None, rows: torch.Tensor = rows, width: int = width
        ) -> torch.Tensor | None:
            return None if tensor is None else tensor[rows, :width]

        yield (
            rows,
            Rollouts(
                samples=tuple(rollouts.samples[i] for i in chosen.tolist()),
                inputs=rollouts.inputs.select(chosen),
                tokens=rollouts.tokens[rows, :width],
                caption_mask=rollouts.caption_mask[rows, :width],
                logprobs=rollouts.logprobs[rows, :width],
                ended=rollouts.ended[rows],
                texts=tuple(rollouts.texts[i] for i in rows.tolist()),
                words=tuple(rollouts.words[i] for i in rows.tolist()),
                lm_logprobs=cut(rollouts.lm_logprobs),
                values=cut(rollouts.values),
            ),
        )
