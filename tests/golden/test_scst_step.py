"""One SCST step against the published formula in plain PyTorch, pycocoevalcap and transformers.

arXiv 2502.13363: the 5 beams are the samples, score = sum log p / length, reward = CIDEr, baseline = the mean
reward of the 5, loss = mean(-score * (reward - baseline)).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pycocoevalcap.cider.cider_scorer import CiderScorer
from transformers import Blip2ForConditionalGeneration

import tiny
from limner.advantages.self_critical import Advantage
from limner.captioners.blip2 import Captioner
from limner.config import Update
from limner.decoding import Rollout
from limner.learner import Learner
from limner.metrics.cider import DocumentFrequencies
from limner.objectives.policy_gradient import Objective
from limner.rewards.cider import Consensus, Reward
from limner.rollout import roll_out
from limner.score import combine
from limner.types import Sample
from limner.update import Optimiser

BEAMS = 5
DECODING = Rollout(do_sample=False, num_beams=BEAMS, captions=BEAMS, min_new_tokens=2, max_new_tokens=10)
REFERENCES = (
    ("a red circle and a blue star", "the circle is on white"),
    ("a green cross above a yellow square", "a green cross", "a square below a cross"),
    ("a star on black",),
)


def by_transformers(model, policy, samples: list[Sample], tokens: torch.Tensor) -> torch.Tensor:
    """(N, T) log-probabilities by the model's own parts, G captions a sample.

    Not by its whole forward pass, which takes some words of random captions for the image's place.
    """
    images = [sample.image for sample in samples for _ in range(BEAMS)]
    pixels = torch.as_tensor(policy.processor(images=images, return_tensors="pt")["pixel_values"])
    prefix = model.get_image_features(pixels).pooler_output
    start = torch.tensor([policy.tokenizer("")["input_ids"]] * len(tokens))
    embedded = model.get_input_embeddings()(torch.cat([start, tokens], 1))
    logits = model.language_model(inputs_embeds=torch.cat([prefix, embedded], 1)).logits
    before = prefix.shape[1] + start.shape[1]
    return logits.log_softmax(-1)[:, before - 1 : -1].gather(-1, tokens[..., None])[..., 0]


def published_ciders(texts: tuple[str, ...]) -> torch.Tensor:
    """(B, G) by pycocoevalcap, one pass for each beam with the references of all samples."""
    columns = []
    for beam in range(BEAMS):
        scorer = CiderScorer()
        for place, references in enumerate(REFERENCES):
            scorer += (texts[place * BEAMS + beam], list(references))
        columns.append(torch.as_tensor(scorer.compute_score()[1], dtype=torch.float32))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("micro_batch", [1, 64])
def test_loss_and_gradient_of_a_step(tmp_path, micro_batch: int) -> None:
    folder = tiny.blip2(tmp_path / "captioner")
    policy = Captioner(str(folder)).load(device=torch.device("cpu"), dtype=torch.float32)
    samples = [replace(s, references=r) for s, r in zip(tiny.samples(3), REFERENCES, strict=True)]
    rollouts = roll_out(policy, samples, DECODING, captions=BEAMS, micro_batch=micro_batch, needs=frozenset())
    frequencies = DocumentFrequencies.of([[text.split() for text in texts] for texts in REFERENCES])
    part = Consensus(frequencies, REFERENCES)(rollouts)
    targets = Advantage(baseline="mean")(
        rollouts, combine(rollouts, {"cider": part}, {"cider": Reward().weight}, {})
    )
    optimiser = Optimiser(policy.trained(), Update(captions=15, lr=1e-5, steps=1))
    learner = Learner(policy, Objective(of="log_probability"), optimiser, micro_batch=micro_batch)
    _, logged = learner.backward(rollouts, targets)

    plain = Blip2ForConditionalGeneration.from_pretrained(folder).eval()
    logprobs = by_transformers(plain, policy, samples, rollouts.tokens)
    score = (logprobs * rollouts.caption_mask).sum(1) / rollouts.caption_mask.sum(1)
    reward = published_ciders(rollouts.texts)
    assert reward.std(1).max() > 0.01, "rewards differ, so that there is something to learn"
    loss = (-score * (reward - reward.mean(1, keepdim=True)).flatten()).mean()
    loss.backward()

    assert logged["loss/policy"].value == pytest.approx(loss.item(), rel=1e-3, abs=1e-5)
    theirs = dict(plain.named_parameters())
    for name, parameter in policy.trained().items():
        expected = theirs[name].grad
        if expected is None:  # the Q-Former's text half, which no image passes
            assert parameter.grad is None or not parameter.grad.any()
            continue
        # float32 sums in another order, over 15 captions
        torch.testing.assert_close(
            parameter.grad, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-8, msg=name
        )
