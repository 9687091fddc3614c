"""What every objective must hold: exact gradients on an enumerable policy, micro-batches, a bandit."""

from __future__ import annotations

import itertools

import pytest
import torch

from limner import component
from limner.objectives import base
from limner.objectives.clipped_ratio import Objective as ClippedRatio
from limner.objectives.cross_entropy import Objective as CrossEntropy
from limner.objectives.policy_gradient import Objective as PolicyGradient
from limner.rewards.base import NoInputs
from limner.types import Rollouts, Sample, Targets, Words

CLIPPED = [
    ClippedRatio(),
    ClippedRatio(normalise="token_mean", clip_high=0.28, kl=0.01),
    ClippedRatio(normalise="constant_length", length=2, kl=0.01, estimator="k1"),
    ClippedRatio(ratio="caption"),
    ClippedRatio(ratio="caption_mean", normalise="token_mean"),
]
ON_DISK: dict[str, list[base.Objective]] = {
    "policy_gradient": [PolicyGradient(of="probability"), PolicyGradient(of="log_probability")],
    "cross_entropy": [CrossEntropy()],
    "clipped_ratio": [*CLIPPED],
}
ALL = [objective for group in ON_DISK.values() for objective in group]
VOCABULARY, LENGTH = 3, 3
ONE = torch.ones(1, 1, dtype=torch.bool)


def test_every_objective_on_disk_is_tested() -> None:
    assert set(component.available("objectives")) == set(ON_DISK)


def made(logprobs: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor | None = None) -> Rollouts:
    """Roll-outs that hold what objectives read."""
    n = len(mask)
    return Rollouts(
        tuple(Sample(str(i), ()) for i in range(n)), NoInputs(n), torch.zeros(mask.shape, dtype=torch.long),
        mask, logprobs, torch.ones(n, dtype=torch.bool), ("",) * n, (Words((), ()),) * n,
        reference_logprobs=reference,
    )  # fmt: skip


def chain(parameters: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(N, T) log-probabilities of a policy with a table of logits for each token before."""
    before = torch.cat([torch.zeros(len(tokens), 1, dtype=torch.long), tokens[:, :-1] + 1], 1)
    return parameters[before].log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def every_caption() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))
    rewards = torch.sin(torch.arange(len(tokens)).double() * 1.7)
    return tokens, rewards


@pytest.mark.parametrize(
    "objective", [PolicyGradient(of="log_probability"), ClippedRatio(), ClippedRatio(ratio="caption_mean")],
    ids=str,
)  # fmt: skip
def test_the_gradient_is_the_exact_gradient_of_the_expected_reward(objective: base.Objective) -> None:
    """sum over all captions of p(caption) * [gradient of our loss on it] = -gradient of E[reward] / T."""
    tokens, rewards = every_caption()
    parameters = torch.randn(VOCABULARY + 1, VOCABULARY, dtype=torch.double,
                             generator=torch.Generator().manual_seed(0)).requires_grad_()  # fmt: skip
    probability = chain(parameters, tokens).sum(1).exp()
    exact = torch.autograd.grad((probability * rewards).sum(), parameters)[0]
    advantages = rewards[:, None].expand(-1, LENGTH)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    logprobs = chain(parameters, tokens)
    rolled = made(logprobs.detach(), mask)
    losses = objective.losses(logprobs, rolled, Targets(advantages, mask))
    loss = (probability.detach()[:, None] * losses).sum()
    torch.testing.assert_close(torch.autograd.grad(-loss, parameters)[0], exact)


@pytest.mark.parametrize(("estimator", "by_ratio"), [("k1", True), ("k3", True), ("k3", False)])
def test_the_expected_estimate_is_the_kl_and_by_the_ratio_has_its_gradient(estimator, by_ratio) -> None:
    """For one token of an enumerable policy, drawn from an older one where the ratio makes up for that."""
    generator = torch.Generator().manual_seed(3)
    logits, older, start = torch.randn(3, 5, dtype=torch.double, generator=generator)
    now, start = logits.requires_grad_().log_softmax(0), start.log_softmax(0)
    old = older.log_softmax(0) if by_ratio else now.detach()
    mask = torch.ones(5, 1, dtype=torch.bool)
    objective = ClippedRatio(kl=1.0, estimator=estimator, kl_by_ratio=by_ratio)
    rolled = made(old[:, None], mask, start[:, None])
    losses = objective.losses(now[:, None], rolled, Targets(torch.zeros(5, 1), mask))
    expected = (old.exp() * losses[:, 0]).sum()
    forward = (now.exp() * (now - start)).sum()
    torch.testing.assert_close(expected.detach(), forward.detach())
    other = forward if by_ratio else (start.exp() * (start - now)).sum()
    ours, exact = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (expected, other))
    torch.testing.assert_close(ours, exact)


def test_k1_without_the_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match="0 in expectation"):
        ClippedRatio(kl=0.1, estimator="k1", kl_by_ratio=False)


def test_the_clips_hold_back_what_went_far_enough_and_are_counted() -> None:
    """Ratios 1.5, 1.5, .5, .5 with advantages up and down: the first is past its clip, and the last."""
    logprobs = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    targets = Targets(torch.tensor([[1.0, -1.0, 1.0, -1.0]]), mask)
    objective, rolled = ClippedRatio(clip_low=0.1, clip_high=0.3), made(torch.zeros(1, 4), mask)
    losses = objective.losses(logprobs, rolled, targets)
    assert losses[0].tolist() == pytest.approx([-1.3, 1.5, -0.5, 0.9])
    gradient = torch.autograd.grad(losses.sum(), logprobs)[0]
    assert gradient[0].tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])
    means = objective.measures(logprobs.detach(), rolled, targets)
    measured = {name: mean.value for name, mean in means.items()}
    assert measured == pytest.approx({"policy/ratio": 1.0, "policy/clip_fraction": 0.5})


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_what_takes_no_part_cannot_spoil_the_loss(objective) -> None:
    """A ratio that overflows, or an unknown log-probability, outside the target mask."""
    logprobs = torch.tensor([[-0.5, -0.1], [-0.2, -0.3]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, False]])
    old = torch.tensor([[-0.5, -1e4], [float("nan"), -0.3]])
    reference = torch.tensor([[-0.5, 1e4], [-0.2, -0.3]])
    targets = Targets(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), mask)
    loss = (objective.losses(logprobs, made(old, mask, reference), targets) * objective.weights(mask)).sum()
    gradient = torch.autograd.grad(loss, logprobs)[0]
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert not gradient[~mask].any()


def test_the_reference_is_asked_for_where_there_is_a_kl() -> None:
    assert [bool(objective.needs) for objective in CLIPPED] == [False, True, True, False, False]
    with pytest.raises(ValueError, match="reference_logprobs"):
        CLIPPED[1].losses(torch.zeros(1, 1), made(torch.zeros(1, 1), ONE), Targets(torch.ones(1, 1), ONE))


@pytest.mark.parametrize(("normalise", "length"), [("constant_length", None), ("token_mean", 30)])
def test_a_length_and_its_normalisation_go_together(normalise, length) -> None:
    with pytest.raises(ValueError, match="constant_length"):
        ClippedRatio(normalise=normalise, length=length)


def test_probability_gradient_is_p_times_the_log_probability_gradient() -> None:
    """Equation 4 of VLRM: d(p M) = p M d(log p), so unlikely tokens hardly move."""
    logprobs = torch.tensor([[-0.1, -2.0, -5.0]], requires_grad=True)
    targets = Targets(torch.tensor([[1.0, -1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
    rolled = made(logprobs.detach(), targets.target_mask)
    gradient = torch.autograd.grad(PolicyGradient().losses(logprobs, rolled, targets).sum(), logprobs)[0]
    torch.testing.assert_close(gradient, -(logprobs.exp() * targets.advantages).detach())


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_micro_batches_give_the_same_gradient(objective) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 5, generator=generator)
    mask = torch.arange(5)[None] < torch.tensor([5, 1, 3, 4, 2, 5, 1, 2])[:, None]
    advantages = torch.randn(8, 5, generator=generator) * mask
    weights = objective.weights(mask)
    old = torch.nn.functional.logsigmoid(logits + 0.3 * torch.randn(8, 5, generator=generator))
    reference = torch.nn.functional.logsigmoid(torch.randn(8, 5, generator=generator))
    gradients = []
    for size in (8, 1):
        free = logits.clone().requires_grad_()
        for rows in torch.arange(8).split(size):
            logprobs = torch.nn.functional.logsigmoid(free[rows])
            rolled = made(old[rows], mask[rows], reference[rows])
            losses = objective.losses(logprobs, rolled, Targets(advantages[rows], mask[rows]))
            (losses * weights[rows]).sum().backward()
        gradients.append(free.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


MASK = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])


@pytest.mark.parametrize("objective", [*ON_DISK["policy_gradient"], ClippedRatio()], ids=str)
def test_weights_are_means_over_tokens_then_captions(objective) -> None:
    assert objective.weights(MASK).tolist() == [[0.25, 0.25, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("objective", [CrossEntropy(), ClippedRatio(normalise="token_mean")], ids=str)
def test_weights_are_a_mean_over_all_tokens(objective) -> None:
    third = pytest.approx(1 / 3)
    assert objective.weights(MASK).tolist() == [[third, third, 0.0], [third, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_a_constant_length_weighs_every_token_alike_whatever_the_lengths() -> None:
    weights = ClippedRatio(normalise="constant_length", length=10).weights(MASK)
    assert weights.flatten().tolist() == pytest.approx([1 / 20, 1 / 20, 0, 1 / 20, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_weights_of_no_token_are_zero_not_nan(objective) -> None:
    assert not objective.weights(torch.zeros(2, 3, dtype=torch.bool)).any()


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_a_bandit_finds_its_best_arm_in_fifty_steps(objective) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.zeros(4, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    pays = torch.tensor([0.1, 0.9, 0.3, 0.0])
    for _ in range(50):
        chances = logits.softmax(0).detach()
        arms = torch.multinomial(chances, 64, replacement=True, generator=generator)[:, None]
        rewards = pays[arms]
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
        mask = torch.ones_like(arms, dtype=torch.bool)
        logprobs = logits.log_softmax(0)[arms]
        rolled = made(logprobs.detach(), mask, torch.full_like(logprobs, 0.25).log())
        losses = objective.losses(logprobs, rolled, Targets(advantages, mask))
        loss = (losses * objective.weights(mask)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert logits.softmax(0)[1] > 0.95
