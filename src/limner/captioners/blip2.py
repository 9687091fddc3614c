"""BLIP-2 captioners: frozen ViT -> Q-Former -> projection -> frozen decoder-only language model (OPT).

Source: BLIP-2 as in transformers' Blip2ForConditionalGeneration; what is trained follows VLRM,
arXiv 2404.01911, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Blip2ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from limner.captioners import base, files
from limner.captioners.base import Generated, TensorInputs
from limner.captioners.causal import CausalLM
from limner.decoding import Decoding
from limner.errors import UserError
from limner.paths import resolve
from limner.types import Sample

FROZEN = ("vision_model", "language_model")


@dataclass(frozen=True)
class Captioner(base.Captioner):
    """BLIP-2 with a decoder-only language model (OPT)."""

    train: tuple[str, ...] = ("query_tokens", "qformer", "language_projection")

    family = "blip2"

    @classmethod
    def matches(cls, config: Mapping[str, object]) -> bool:
        """Whether config.json is a BLIP-2 captioner's."""
        return config.get("model_type") == "blip-2"

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Blip2Policy:
        """Load a Hugging Face BLIP-2 checkpoint, and the published partial weights over it where given."""
        path = resolve(self.path)
        with files.explained(path):
            model = Blip2ForConditionalGeneration.from_pretrained(path, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(path)
            processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        if self.weights:
            files.load_partial(
                model, Path(self.weights), parts=("query_tokens", "qformer", "language_projection")
            )
        return Blip2Policy(self, model, tokenizer, processor).to(device)


class Blip2Policy(base.Policy[TensorInputs]):
    """A loaded BLIP-2.

    Its inputs hold `features` (B, P, D) of the frozen ViT and `prefix` (B, Q, H) as it was when encoded.
    """

    model: Blip2ForConditionalGeneration
    lora_targets = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

    def __init__(self, settings: Captioner, model: Blip2ForConditionalGeneration, tokenizer, processor):
        """Freeze all but `settings.train`.

        Raises:
            UserError: `train` names a frozen part, or the language model is an encoder-decoder.
        """
        super().__init__(settings)
        if not model.config.use_decoder_only_language_model:
            raise UserError(
                f"{settings.path}: BLIP-2 with an encoder-decoder language model is not supported"
            )
        for pattern in settings.train:
            if any(base.names_part(part, pattern.split(".")[0]) for part in FROZEN):
                raise UserError(
                    f"captioner.train: {pattern!r} is frozen in this family (image encoder, language model)"
                )
        self.model = model.eval()  # dropout would make log-probabilities differ from those at generation
        self._tokenizer, self.processor = tokenizer, processor
        self.select_trained(settings.train)
        model.query_tokens.data = model.query_tokens.data.float()
        model.qformer.float()
        model.language_projection.float()
        generation = model.language_model.generation_config
        eos = generation.eos_token_id
        eos_ids = tuple(eos) if isinstance(eos, list) else (int(eos),)
        pad = generation.pad_token_id
        self.lm = CausalLM(model.language_model, eos_ids, eos_ids[0] if pad is None else int(pad))

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The language model's tokenizer."""
        return self._tokenizer

    @property
    def vision(self) -> PreTrainedModel:
        """The frozen ViT."""
        return self.model.vision_model

    @property
    def language_model(self) -> PreTrainedModel:
        """The frozen language model."""
        return self.model.language_model

    @torch.no_grad()
    def encode(self, samples: Sequence[Sample], prompt: str | None = None) -> TensorInputs:
        """ViT features (B, P, D), the prefix (B, Q, H) they give now, and the prompt's ids (B, L)."""
        images = [sample.image for sample in samples]
        pixels = self.processor(images=images, return_tensors="pt")["pixel_values"]
        dtype = self.vision.dtype
        features = self.vision(pixel_values=pixels.to(self.device, dtype)).last_hidden_state
        text = self.settings.prompt if prompt is None else prompt
        start = torch.tensor(self.tokenizer(text)["input_ids"], device=self.device).expand(len(samples), -1)
        return TensorInputs({"features": features, "prefix": self.prefix(features), "start": start})

    def features(self, inputs: TensorInputs) -> torch.Tensor:
        """(B, P, D) ViT features."""
        return inputs.tensors["features"]

    def prefix(self, features: torch.Tensor) -> torch.Tensor:
        """(B, Q, H) the visual prefix, with gradient to query tokens, Q-Former and projection."""
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        out = self.model.qformer(query_embeds=queries, encoder_hidden_states=features.float())
        return self.model.language_projection(out.last_hidden_state).to(self.language_model.dtype)

    def generate(
        self,
        inputs: TensorInputs,
        decoding: Decoding,
        *,
        captions: int = 1,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """Captions from the prefix of `encode`; see base."""
        return self.lm.generate(
            self._context(inputs.tensors["prefix"], inputs), decoding, captions=captions, generator=generator
        )

    def logprobs(
        self, inputs: TensorInputs, tokens: torch.Tensor, caption_mask: torch.Tensor
    ) -> torch.Tensor:
        """Log-probabilities through a fresh Q-Former pass (one a sample, shared by its captions)."""
        context = self._context(self.prefix(self.features(inputs)), inputs)
        context = context.repeat_interleave(len(tokens) // len(context), 0)
        return self.lm.logprobs(context, tokens, caption_mask)

    def hidden(self, inputs: TensorInputs, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states behind the prefix of `encode`, which is constant here."""
        context = self._context(inputs.tensors["prefix"], inputs)
        return self.lm.states(context.repeat_interleave(len(tokens) // len(context), 0), tokens)

    @torch.no_grad()
    def lm_logprobs(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """Log-probabilities after the beginning-of-sequence token alone."""
        start = torch.tensor(self.tokenizer("")["input_ids"], device=tokens.device).expand(len(tokens), -1)
        return self.lm.logprobs(self.lm.embed(start), tokens, caption_mask)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and image processor as one Hugging Face folder."""
        self.model.save_pretrained(folder, state_dict=dict(base.plain_state(self.model)))
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def _context(self, prefix: torch.Tensor, inputs: TensorInputs) -> torch.Tensor:
        """(B, Q + L, H) the prefix and the embedded prompt, as transformers joins them."""
        return torch.cat([prefix, self.lm.embed(inputs.tensors["start"])], 1)
