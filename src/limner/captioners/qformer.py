"""What BLIP-2 and InstructBLIP share: ViT -> Q-Former -> projection -> language model.

Several frames of one sample go through the ViT one by one; their tokens stand one after another before one
Q-Former, which gives the same number of query tokens for 1 frame as for 32 (arXiv 2502.13363, section 3).
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from torch import nn
from transformers import (
    AutoImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from limner.captioners import adapters, base, files
from limner.captioners.base import Generated, TensorInputs
from limner.captioners.causal import CausalLM
from limner.captioners.fresh import renew
from limner.captioners.seq2seq import Seq2SeqLM
from limner.decoding import Decoding
from limner.errors import UserError
from limner.types import Sample

PARTS = ("query_tokens", "qformer", "language_projection")
"""What VLRM trains (arXiv 2404.01911, section 3.2), and what its published weights hold."""
CACHED = 8 << 20
"""Bytes of the widest tensor that the ViT makes of the images that go through it together on a CPU: larger
ones leave the caches between two operations, and come back slower than the operations take."""


@dataclass(frozen=True)
class Settings(base.Captioner):
    """Settings of the families with a Q-Former."""

    train: tuple[str, ...] = PARTS
    image_size: Annotated[int, Ge(1)] | None = None
    """Side of the square that a picture becomes, pixels; the checkpoint's where null.

    The ViT's position embeddings are interpolated where it is not the one the checkpoint was trained at.
    """

    fresh: tuple[str, ...] = ()
    """Parts that start from random weights instead of the checkpoint's; patterns as in `train`."""

    @property
    def replaced(self) -> tuple[str, ...]:
        """Parts that `prepare` puts others in the place of: the checkpoint may lack them."""
        return (*self.fresh, *(PARTS if self.weights else ()))

    def prepare(self, model) -> None:
        """Put `fresh` and `weights` over the checkpoint's weights.

        Raises:
            UserError: one of them does not fit the model.
        """
        if self.fresh:
            renew(model, self.fresh, std=model.config.qformer_config.initializer_range)
        if self.weights:
            files.load_partial(model, Path(self.weights), parts=PARTS)

    def image_processor(self, path: str):
        """The checkpoint's image processor, at the size asked for."""
        size = (
            {} if self.image_size is None else {"size": {"height": self.image_size, "width": self.image_size}}
        )
        return AutoImageProcessor.from_pretrained(path, backend="pil", **size, trust_remote_code=False)


class QFormerPolicy(base.Policy[TensorInputs]):
    """A loaded captioner with a Q-Former.

    Its inputs hold the ViT's `features` (B, F, P, D) of F frames at most, `frames` (B,) how many of them
    each sample has, and the prompt's ids `start` (B, L). Where the ViT is trained they hold `pixels`
    (B, F, 3, height, width) instead of features. Once captions were generated, the `prefix` (B, Q, H) that
    they were generated behind stands with them.
    """

    lora_targets = (
        *("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),  # OPT
        *("o_proj", "gate_proj", "up_proj", "down_proj"),  # Llama
        *("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"),  # T5
    )
    partial_parts = PARTS

    def __init__(self, settings: Settings, model, tokenizer: PreTrainedTokenizerFast, processor):
        """Freeze all but `settings.train`.

        Raises:
            UserError: `train` names the language model, or nothing in the checkpoint.
        """
        super().__init__(settings)
        for pattern in adapters.parts_and_projections(settings.train)[0]:
            if base.names_part("language_model", pattern.split(".")[0]):
                raise UserError(
                    f"captioner.train: {pattern!r} is frozen in this family (the language model); "
                    "lora(q,v) trains adapters in it"
                )
        self.model = model.eval()  # dropout would make log-probabilities differ from those at generation
        self._tokenizer, self.processor = tokenizer, processor
        self.select_trained(settings.train)
        model.query_tokens.data = model.query_tokens.data.float()
        model.qformer.float()
        model.language_projection.float()
        self.vision_trained = any(p.requires_grad for p in model.vision_model.parameters())
        if self.vision_trained:
            model.vision_model.float()
        self.lm = language_model(model.language_model)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The language model's tokenizer."""
        return self._tokenizer

    @property
    def vision(self) -> PreTrainedModel | None:
        """The frozen ViT; None where it is trained."""
        return None if self.vision_trained else self.model.vision_model

    @property
    def language_model(self) -> PreTrainedModel:
        """The frozen language model."""
        return self.model.language_model

    @abc.abstractmethod
    def query(self, inputs: TensorInputs, features: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """(B, Q, Dq) float32 query tokens that have read the image.

        Args:
            inputs: B rows.
            features: (B, S, D) float32, the tokens of all frames.
            seen: (B, S) bool, True on tokens of frames that are there; None where all are.
        """

    def instruction(self, prompt: str, rows: int) -> dict[str, torch.Tensor]:
        """Further inputs that a prompt gives, `rows` rows each; none here."""
        return {}

    @torch.no_grad()
    def encode(self, samples: Sequence[Sample], prompt: str | None = None) -> TensorInputs:
        """The inputs that the class describes; the ViT takes at most one image a sample at once."""
        for sample in samples:
            if not sample.media:
                raise UserError(f"{sample.id}: this sample has no picture")
        counts = [len(sample.media) for sample in samples]
        text = self.settings.prompt if prompt is None else prompt
        parts = list(self._pixels(samples))
        tensors = (
            {"pixels": by_sample(torch.cat(parts), counts)}
            if self.vision_trained
            else {"features": by_sample(torch.cat([self.tower(part) for part in parts]), counts)}
        )
        tensors["frames"] = torch.tensor(counts, device=self.device)
        ids = torch.tensor(self.tokenizer(text)["input_ids"], dtype=torch.long, device=self.device)
        tensors["start"] = ids.expand(len(samples), -1)
        tensors |= self.instruction(text, len(samples))
        return TensorInputs(tensors)

    def _pixels(self, samples: Sequence[Sample]) -> Iterator[torch.Tensor]:
        """All frames of all samples, (at most B, 3, height, width) at a time."""
        images = [image for sample in samples for image in sample.media]
        for start in range(0, len(images), len(samples)):
            chosen = images[start : start + len(samples)]
            pixels = torch.as_tensor(self.processor(images=chosen, return_tensors="pt")["pixel_values"])
            yield pixels.to(self.device, self.model.vision_model.dtype)

    def tower(self, pixels: torch.Tensor) -> torch.Tensor:
        """(images, P, D) ViT features; position embeddings are interpolated where the size is another."""
        vision = self.model.vision_model
        config, (height, width) = vision.config, pixels.shape[-2:]
        native = (height, width) == (config.image_size, config.image_size)
        together = len(pixels)
        if pixels.device.type == "cpu":
            positions = (height // config.patch_size) * (width // config.patch_size) + 1
            together = CACHED // (positions * config.intermediate_size * pixels.itemsize) or 1
        made = [
            vision(pixel_values=part, interpolate_pos_encoding=not native).last_hidden_state
            for part in pixels.split(together)
        ]
        return torch.cat(made) if len(made) > 1 else made[0]

    def frame_features(self, inputs: TensorInputs) -> torch.Tensor:
        """(B, F, P, D) ViT features of `encode`; new ones with gradient where the ViT is trained."""
        if not self.vision_trained:
            return inputs.tensors["features"]
        pixels, frames = inputs.tensors["pixels"], inputs.tensors["frames"]
        there = pixels[present(frames, pixels.shape[1])]
        return by_sample(torch.cat([self.tower(part) for part in there.split(len(pixels))]), frames.tolist())

    def features(self, inputs: TensorInputs) -> torch.Tensor:
        """(B, F * P, D) ViT features, zero for frames that a sample does not have."""
        return self.frame_features(inputs).flatten(1, 2)

    def prefix(self, inputs: TensorInputs) -> torch.Tensor:
        """(B, Q, H) the visual prefix, with gradient to the parts that are trained."""
        features, seen = self.frame_features(inputs), None
        if features.shape[1] > 1:
            frames = inputs.tensors["frames"]
            longest = int(frames.max())
            features = features[:, :longest]
            if int(frames.min()) < longest:
                seen = present(frames, longest).repeat_interleave(features.shape[2], 1)
        queries = self.query(inputs, features.flatten(1, 2).float(), seen)
        return self.model.language_projection(queries).to(self.language_model.dtype)

    @torch.no_grad()
    def fixed_prefix(self, inputs: TensorInputs) -> torch.Tensor:
        """(B, Q, H) the prefix of the parts as they were when it was first asked for; kept in the inputs.

        Log-probabilities with gradient never read it, so that cross-entropy, which generates nothing, runs
        the Q-Former (and a trained ViT) once.
        """
        if "prefix" not in inputs.tensors:
            inputs.tensors["prefix"] = self.prefix(inputs)
        return inputs.tensors["prefix"]

    def prompt_positions(self, inputs: TensorInputs) -> tuple[int, ...]:
        """One a query token, whatever the picture, and one a token of the prompt."""
        return (self.model.query_tokens.shape[1] + inputs.tensors["start"].shape[1],) * len(inputs)

    def generate(
        self,
        inputs: TensorInputs,
        decoding: Decoding,
        *,
        captions: int = 1,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """Captions from the fixed prefix; see base."""
        context = self._context(self.fixed_prefix(inputs), inputs)
        return self.lm.generate(context, decoding, captions=captions, generator=generator)

    def logprobs(
        self, inputs: TensorInputs, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
    ) -> torch.Tensor:
        """Log-probabilities through a fresh Q-Former pass (one a sample, shared by its captions)."""
        context = self._context(self.prefix(inputs), inputs)
        with self.training_dropout():
            return self.lm.logprobs(context, tokens, caption_mask, smoothing)

    def hidden(self, inputs: TensorInputs, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states behind the prefix of the generation, which is constant here."""
        return self.lm.states(self._context(self.fixed_prefix(inputs), inputs), tokens)

    @torch.no_grad()
    def lm_logprobs(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """Log-probabilities after the tokenizer's empty text, which is a special token alone.

        A decoder reads its beginning of sequence; an encoder-decoder's encoder reads its end of sequence.
        """
        ids = self.tokenizer("")["input_ids"] or list(self.lm.eos_ids[:1])
        start = torch.tensor([ids], device=tokens.device)
        with self.without_adapters():
            return self.lm.logprobs(self.lm.embed(start), tokens, caption_mask)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor as one Hugging Face folder."""
        self.model.save_pretrained(folder, state_dict=dict(base.plain_state(self.model)))
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def _context(self, prefix: torch.Tensor, inputs: TensorInputs) -> torch.Tensor:
        """(B, Q + L, H) the prefix and the embedded prompt, as transformers joins them."""
        return torch.cat([prefix, self.lm.embed(inputs.tensors["start"])], 1)


def language_model(model: PreTrainedModel) -> CausalLM | Seq2SeqLM:
    """The language model with its special tokens, by whether it has an encoder."""
    generation = model.generation_config
    eos = generation.eos_token_id
    eos_ids = tuple(eos) if isinstance(eos, list) else (int(eos),)
    pad = generation.pad_token_id
    pad = eos_ids[0] if pad is None or pad < 0 else int(pad)
    kind = Seq2SeqLM if model.config.is_encoder_decoder else CausalLM
    return kind(model, eos_ids, pad)


def by_sample(flat: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """(B, F, ...) from the frames of all samples (frames, ...), zero where a sample has fewer."""
    if len(set(counts)) == 1:
        return flat.unflatten(0, (len(counts), counts[0]))
    return nn.utils.rnn.pad_sequence(list(flat.split(list(counts))), batch_first=True)


def present(frames: torch.Tensor, longest: int) -> torch.Tensor:
    """(B, longest) bool, True on the frames that a sample has."""
    return torch.arange(longest, device=frames.device) < frames[:, None]
