"""What every objective must hold: exact gradients on an enumerable policy, micro-batches, a bandit."""

from __future__ import annotations

import itertools

import pytest
import torch

from limner import component
from limner.objectives.cross_entropy import Objective as CrossEntropy
from limner.objectives.policy_gradient import Objective as PolicyGradient
from limner.types import Targets

ON_DISK = {
    "policy_gradient": [PolicyGradient(of="probability"), PolicyGradient(of="log_probability")],
    "cross_entropy": [CrossEntropy()],
}
ALL = [objective for group in ON_DISK.values() for objective in group]
VOCABULARY, LENGTH = 3, 3


def test_every_objective_on_disk_is_tested() -> None:
    assert set(component.available("objectives")) == set(ON_DISK)


def chain(parameters: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(N, T) log-probabilities of a policy with a table of logits for each token before."""
    before = torch.cat([torch.zeros(len(tokens), 1, dtype=torch.long), tokens[:, :-1] + 1], 1)
    return parameters[before].log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def every_caption() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))
    rewards = torch.sin(torch.arange(len(tokens)).double() * 1.7)
    return tokens, rewards


def test_log_probability_gradient_is_the_exact_gradient_of_the_expected_reward() -> None:
    """sum over all captions of p(caption) * [gradient of our loss on it] = -gradient of E[reward] / T."""
    tokens, rewards = every_caption()
    parameters = torch.randn(VOCABULARY + 1, VOCABULARY, dtype=torch.double,
                             generator=torch.Generator().manual_seed(0)).requires_grad_()  # fmt: skip
    probability = chain(parameters, tokens).sum(1).exp()
    exact = torch.autograd.grad((probability * rewards).sum(), parameters)[0]
    advantages = rewards[:, None].expand(-1, LENGTH)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    logprobs = chain(parameters, tokens)
    losses = PolicyGradient(of="log_probability").losses(
        logprobs, logprobs.detach(), Targets(advantages, mask)
    )
    loss = (probability.detach()[:, None] * losses).sum()
    torch.testing.assert_close(torch.autograd.grad(-loss, parameters)[0], exact)


def test_probability_gradient_is_p_times_the_log_probability_gradient() -> None:
    """Equation 4 of VLRM: d(p M) = p M d(log p), so unlikely tokens hardly move."""
    logprobs = torch.tensor([[-0.1, -2.0, -5.0]], requires_grad=True)
    targets = Targets(torch.tensor([[1.0, -1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool))
    gradient = torch.autograd.grad(PolicyGradient().losses(logprobs, logprobs, targets).sum(), logprobs)[0]
    torch.testing.assert_close(gradient, -(logprobs.exp() * targets.advantages).detach())


@pytest.mark.parametrize("objective", ALL, ids=str)
def test_micro_batches_give_the_same_gradient(objective) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(8, 5, generator=generator)
    mask = torch.arange(5)[None] < torch.tensor([5, 1, 3, 4, 2, 5, 1, 2])[:, None]
    advantages = torch.randn(8, 5, generator=generator) * mask
    weights = objective.weights(mask)
    gradients = []
    for size in (8, 1):
        free = logits.clone().requires_grad_()
        for rows in torch.arange(8).split(size):
            logprobs = torch.nn.functional.logsigmoid(free[rows])
            losses = objective.losses(logprobs, logprobs.detach(), Targets(advantages[rows], mask[rows]))
            (losses * weights[rows]).sum().backward()
        gradients.append(free.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


MASK = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])


@pytest.mark.parametrize("objective", [o for o in ALL if not isinstance(o, CrossEntropy)], ids=str)
def test_weights_are_means_over_tokens_then_captions(objective) -> None:
    assert objective.weights(MASK).tolist() == [[0.25, 0.25, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]


def test_cross_entropy_is_a_mean_over_all_tokens() -> None:
    third = pytest.approx(1 / 3)
    assert CrossEntropy().weights(MASK).tolist() == [[third, third, 0.0], [third, 0.0, 0.0], [0.0, 0.0, 0.0]]


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
        loss = (
            objective.losses(logprobs, logprobs.detach(), Targets(advantages, mask)) * objective.weights(mask)
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert logits.softmax(0)[1] > 0.95
