"""What is watched in every run, because reward hacking shows here first: length, repetition, variety."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from limner.advantages.group import zero_spread
from limner.captioners.base import Policy
from limner.metrics import phrases
from limner.rollout import part_of, reference_logprobs
from limner.types import Mean, Rollouts, Scores


def watch(rollouts: Rollouts, scores: Scores) -> dict[str, Mean]:
    """Measures of N sampled captions that no reward is told about."""
    words = [[w for w in row.words if any(c.isalnum() for c in w)] for row in rollouts.words]
    counts = torch.tensor([float(len(row)) for row in words])
    distinct = torch.tensor([float(len(set(row))) for row in words])
    colours = torch.tensor([float(len(phrases.colours(row))) for row in words])
    texts = rollouts.texts
    out = {
        "watch/words": Mean.of(counts),
        "watch/tokens": Mean.of(rollouts.lengths.float()),
        "watch/cut": Mean.of((~rollouts.ended).float()),
        "watch/distinct": Mean(float(len(set(texts))), float(len(texts))),
        "watch/repetition": Mean.of((1 - distinct / counts).masked_fill(counts == 0, float("nan"))),
        "watch/colours": Mean.of(colours),
        "unscored": Mean.of((~scores.scored).float()),
    }
    if rollouts.captions > 1:
        out["watch/zero_spread"] = Mean.of(zero_spread(scores.totals.view(-1, rollouts.captions)))
    if rollouts.lm_logprobs is not None:
        out["watch/lm_logprob"] = Mean.of(rollouts.lm_logprobs.sum(1) / rollouts.lengths)
    return out


@torch.no_grad()
def kl_to_start(
    policy: Policy, start: Mapping[str, torch.Tensor], rollouts: Rollouts, *, rows: int
) -> dict[str, Mean]:
    """Monte-Carlo KL of the policy to where it started, nats a token, on `rows` rows of the roll-outs.

    Uses k3 = r - 1 - log r with r = p_start / p_now on tokens sampled from (a truncation of) the policy: it
    is never negative. Must be called before the update, while `rollouts.logprobs` are the policy's own.
    Where the roll-outs carry reference log-probabilities, those of all captions are used.
    """
    part = rollouts
    if part.reference_logprobs is None:
        count = len(rollouts.samples)
        chosen = torch.arange(0, count, -(-count * rollouts.captions // rows), device=rollouts.tokens.device)
        _, part = part_of(rollouts, chosen)
        part = part.replace(reference_logprobs=reference_logprobs(policy, part, rows, start))
    assert part.reference_logprobs is not None
    log_ratio = (part.reference_logprobs - part.logprobs)[part.caption_mask]
    return {"watch/kl": Mean.of(log_ratio.exp() - 1 - log_ratio)}


def rewards(scores: Scores, rollouts: Rollouts) -> dict[str, Mean]:
    """Mean of every reward part before its weight, a caption; a reward a token is summed over the caption."""
    out = {"reward/total": Mean.of(scores.totals)}
    if scores.greedy is not None:
        out["reward/greedy"] = Mean.of(scores.greedy)
    for name, part in scores.parts.items():
        values = part.values if part.values.dim() == 1 else (part.values * rollouts.caption_mask).sum(1)
        out[f"reward/{name}"] = Mean.of(values)
        out |= {f"reward/{name}/{key}": mean for key, mean in part.metrics.items()}
    return out


def flag(reason: str) -> Mean:
    """1 where there is a reason, else 0."""
    return Mean(float(bool(reason)), 1.0)
