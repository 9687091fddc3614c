"""What is watched in every run, because reward hacking shows here first: length, repetition, variety."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from limner.advantages.group import zero_spread
from limner.captioners.base import Policy
from limner.metrics import phrases
from limner.metrics.self_praise import praised_words
from limner.rollout import part_of, reference_logprobs
from limner.types import Mean, Rollouts, Scores


def watch(rollouts: Rollouts, scores: Scores) -> dict[str, Mean]:
    """Measures of N sampled captions that no reward is told about."""
    words = [[w for w in row.words if any(c.isalnum() for c in w)] for row in rollouts.words]
    counts = torch.tensor([float(len(row)) for row in words])
    distinct = torch.tensor([float(len(set(row))) for row in words])
    colours = torch.tensor([float(len(phrases.colours(row))) for row in words])
    objects = torch.tensor([float(len(phrases.objects(row))) for row in words])
    praise = torch.tensor([float(bool(praised_words(row.words))) for row in rollouts.words])
    texts = rollouts.texts
    out = {
        "watch/words": Mean.of(counts),
        "watch/tokens": Mean.of(rollouts.lengths.float()),
        "watch/cut": Mean.of((~rollouts.ended).float()),
        "watch/distinct": Mean(float(len(set(texts))), float(len(texts))),
        "watch/repetition": Mean.of((1 - distinct / counts).masked_fill(counts == 0, float("nan"))),
        "watch/colours": Mean.of(colours),
        "watch/objects": Mean.of(objects),
        "watch/self_praise": Mean.of(praise),
        "unscored": Mean.of((~scores.scored).float()),
    }
    if rollouts.captions > 1 and scores.parts:
        out["watch/zero_spread"] = Mean.of(zero_spread(scores.totals.view(-1, rollouts.captions)))
    if rollouts.lm_logprobs is not None:
        out["watch/lm_logprob"] = _per_token(rollouts.lm_logprobs, rollouts)
    return out


def _per_token(logprobs: torch.Tensor, rollouts: Rollouts) -> Mean:
    return Mean.of(logprobs.sum(1) / rollouts.lengths)


@torch.no_grad()
def drift(
    policy: Policy, start: Mapping[str, torch.Tensor], rollouts: Rollouts, *, rows: int, due: bool
) -> dict[str, Mean]:
    """What needs a model to be watched: the KL to the start, and the language model's log-probability.

    Args:
        policy: before the update.
        start: its trained parameters as the run started.
        rollouts: N captions; what they carry for rewards or advantages is not computed again.
        rows: of the roll-outs to look at, otherwise.
        due: whether to look at what they do not carry.
    """
    out: dict[str, Mean] = {}
    if due or rollouts.reference_logprobs is not None:
        out |= kl_to_start(policy, start, rollouts, rows=rows)
    if due and rollouts.lm_logprobs is None and not policy.lm_trained:
        part = _evenly(rollouts, rows)
        out["watch/lm_logprob"] = _per_token(policy.lm_logprobs(part.tokens, part.caption_mask), part)
    return out


def _evenly(rollouts: Rollouts, rows: int) -> Rollouts:
    """About so many rows, of samples evenly spaced."""
    apart = -(-len(rollouts.tokens) // rows)
    chosen = torch.arange(0, len(rollouts.samples), apart, device=rollouts.tokens.device)
    return part_of(rollouts, chosen)[1]


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
        part = _evenly(rollouts, rows)
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


def alarms(raised: Iterable[str]) -> dict[str, Mean]:
    """How many numbers are beyond their limits, and which."""
    out = {f"alarm/{key}": Mean(1.0, 1.0) for key in raised}
    return {"alarms": Mean(float(len(out)), 1.0), **out}


def flag(reason: str) -> Mean:
    """1 where there is a reason, else 0."""
    return Mean(float(bool(reason)), 1.0)
