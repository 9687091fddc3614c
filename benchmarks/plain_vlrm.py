"""One VLRM step as figure 1 of arXiv 2404.01911 draws it, with stock calls of transformers and peft.

It is what limner is measured against. Every pass stands alone: generate() with pixel values, the ITM model
with its own vision tower, the value function and the reference as copies of the language model, the policy's
whole forward. Settings, value head and word penalties are limner's own, so that the two differ in how the
work is done and in nothing else.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
)

from limner.captioners.words import split
from limner.config import Recipe
from limner.critic import value_head
from limner.paths import resolve
from limner.rewards.base import NoInputs
from limner.types import Rollouts, Sample
from limner.update import learning_rate

MATCH = 1


@dataclass
class Outcome:
    """What one step made."""

    texts: list[str]
    """The captions."""
    tokens: torch.Tensor
    """(B, T) their ids."""
    returns: torch.Tensor
    """(B, T)."""
    losses: dict[str, float]
    """Of the value function and of the policy."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the parts."""


def loaded(kind: Any, path: str, *, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of transformers, untyped: its annotations promise a type checker less than it has."""
    return kind.from_pretrained(path, dtype=dtype).to(device).eval()


class PlainVlrm:
    """Models, copies and optimisers of the plain version."""

    def __init__(self, recipe: Recipe, *, device: torch.device, dtype: torch.dtype):
        """Load what the recipe names."""
        self.recipe, self.device, self.dtype = recipe, device, dtype
        path, itm_path = resolve(recipe.captioner.path), resolve(recipe.rewards["itm"].path)
        self.policy = loaded(Blip2ForConditionalGeneration, path, device=device, dtype=dtype)
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        self.policy.requires_grad_(False)
        self.trained: list[nn.Parameter] = [self.policy.query_tokens]
        self.trained += [*self.policy.qformer.parameters(), *self.policy.language_projection.parameters()]
        for parameter in self.trained:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
        self.reference = copy.deepcopy(self.policy.language_model)
        value = recipe.advantage.value_function
        lora = LoraConfig(
            r=value.lora_rank, lora_alpha=value.lora_alpha,
            target_modules=["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
        )  # fmt: skip
        self.value_lm = get_peft_model(copy.deepcopy(self.policy.language_model.model), lora)
        self.head = value_head(self.policy.language_model.config.hidden_size, value.head).to(device)
        self.value_trained = [p for p in self.value_lm.parameters() if p.requires_grad]
        for parameter in self.value_trained:
            parameter.data = parameter.data.float()
        self.value_trained += list(self.head.parameters())
        self.itm = loaded(Blip2ForImageTextRetrieval, itm_path, device=device, dtype=dtype)
        self.itm_tokenizer = AutoTokenizer.from_pretrained(itm_path)
        self.optimiser = torch.optim.Adam(self.trained)
        self.value_optimiser = torch.optim.Adam(self.value_trained)

    def step(self, samples: Sequence[Sample], step: int) -> Outcome:
        """Generate, score, update the value function, update the policy."""
        clock = Laps(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            images = [sample.image for sample in samples]
            pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.device, self.dtype)
            tokens = self.generate(pixels)
            clock.lap("rollout")
            eos = tokens == self.policy.config.text_config.eos_token_id
            caption_mask = (eos.cumsum(1) - eos.long()) == 0
            texts = self.texts(tokens, caption_mask)
            returns = self.returns(samples, pixels, tokens, caption_mask, texts)
            clock.lap("rewards")
            values = self.values(pixels, tokens)
            weights = caption_mask / caption_mask.sum(1, keepdim=True) / len(tokens)
            value_loss = ((returns - values).square() * weights).sum()
        rate = self.recipe.advantage.value_function.lr
        update(self.value_optimiser, value_loss, self.value_trained, self.recipe.update, step, rate)
        clock.lap("value")
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            advantages = (returns - values.detach())[caption_mask]
            normal = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
            logprobs = self.logprobs(pixels, tokens)
            pushed = logprobs.exp() if self.recipe.objective.of == "probability" else logprobs
            policy_loss = -(pushed[caption_mask] * normal * weights[caption_mask]).sum()
        update(self.optimiser, policy_loss, self.trained, self.recipe.update, step, None)
        clock.lap("policy")
        losses = {"value": float(value_loss.detach()), "policy": float(policy_loss.detach())}
        return Outcome(texts, tokens, returns, losses, clock.seconds)

    def generate(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, T) sampled tokens."""
        how = self.recipe.rollout
        tokens = self.policy.generate(
            pixel_values=pixels, do_sample=True, top_k=how.top_k, temperature=how.temperature,
            min_new_tokens=how.min_new_tokens, max_new_tokens=how.max_new_tokens,
        )  # fmt: skip
        return tokens[:, self.policy.config.num_query_tokens + 1 :]  # it gives the prompt back too

    def texts(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> list[str]:
        """The captions as text."""
        rows = [row[keep].tolist() for row, keep in zip(tokens.cpu(), caption_mask.cpu(), strict=True)]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    @torch.no_grad()
    def returns(self, samples, pixels, tokens, caption_mask, texts) -> torch.Tensor:
        """(B, T) sim + ref - noeos, and the penalties from each token on."""
        whole = self.similarity(pixels, texts) + self.fluency(tokens, caption_mask)
        rollouts = self.rollouts(samples, tokens, caption_mask, texts)
        fined = torch.zeros_like(caption_mask, dtype=torch.float32)
        for name in ("bad_phrases", "repeats"):
            fined += self.recipe.rewards[name](rollouts).values.to(self.device)
        whole += self.recipe.rewards["no_eos"](rollouts).values
        return (whole[:, None] + fined.flip(1).cumsum(1).flip(1)) * caption_mask

    def similarity(self, pixels: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """(B,) match logits."""
        given = self.itm_tokenizer(texts, padding=True, return_tensors="pt").to(self.device)
        ids, mask = given["input_ids"], given["attention_mask"]
        if self.itm.config.image_token_index is not None:  # as Blip2Processor puts them
            shape = (len(texts), self.itm.config.num_query_tokens)
            ids = torch.cat([ids.new_full(shape, self.itm.config.image_token_index), ids], 1)
            mask = torch.cat([mask.new_ones(shape), mask], 1)
        out = self.itm(
            pixel_values=pixels, input_ids=ids, attention_mask=mask, use_image_text_matching_head=True
        )
        return out.logits_per_image[:, MATCH].float()

    def fluency(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """(B,) mean log-probability under the reference."""
        start = tokens.new_full((len(tokens), 1), self.policy.config.text_config.bos_token_id)
        ids = torch.cat([start, tokens], 1)
        logits = self.reference(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1]
        logprobs = logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        return (logprobs * caption_mask).sum(1) / caption_mask.sum(1)

    def rollouts(self, samples, tokens, caption_mask, texts) -> Rollouts:
        """What limner's word rewards look at."""
        rows = zip(tokens.cpu(), caption_mask.cpu(), strict=True)
        words = tuple(split(self.tokenizer, row, keep) for row, keep in rows)
        ended = (tokens == self.policy.config.text_config.eos_token_id).any(1)
        blank = torch.zeros(tokens.shape, device=tokens.device)
        inputs = NoInputs(len(samples))
        return Rollouts(tuple(samples), inputs, tokens, caption_mask, blank, ended, tuple(texts), words)

    def values(self, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) values, with gradient to the adapter and the head."""
        with torch.no_grad():
            prefix = self.policy.get_image_features(pixels).pooler_output
            start = tokens.new_full((len(tokens), 1), self.policy.config.text_config.bos_token_id)
            before = torch.cat([start, tokens[:, :-1]], 1)
            embeds = torch.cat([prefix, self.policy.get_input_embeddings()(before)], 1)
        hidden = self.value_lm(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return self.head(hidden[:, prefix.shape[1] :].float())[..., 0].float()

    def logprobs(self, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(B, T) log-probabilities, with gradient to the trained parts."""
        config = self.policy.config
        image = tokens.new_full((len(tokens), config.num_query_tokens), config.image_token_index)
        start = tokens.new_full((len(tokens), 1), config.text_config.bos_token_id)
        ids = torch.cat([image, start, tokens], 1)
        logits = self.policy(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        logprobs = logits[:, config.num_query_tokens : -1].float().log_softmax(-1)
        return logprobs.gather(-1, tokens[..., None])[..., 0]


def update(optimiser: torch.optim.Optimizer, loss: torch.Tensor, trained, settings, step: int, lr) -> None:
    """One step of Adam with clipping."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, step, lr=lr)
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(trained, settings.clip_norm)
    optimiser.step()


class Laps:
    """Seconds between laps."""

    def __init__(self, device: torch.device):
        """Start."""
        self.device = device
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Name the time since the last lap."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
