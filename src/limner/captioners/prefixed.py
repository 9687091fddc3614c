"""Captioners that read image tokens and a chat prompt as one text: LLaVA, Qwen-VL and all their kin.

The vision tower runs once an image in `encode`. The prompt with its image tokens is prefilled by the model's
own forward, once for all captions of an image: when they are generated, and when they are scored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from limner.captioners import base, files
from limner.captioners.base import Generated
from limner.captioners.chat import Chat
from limner.captioners.images import ImageEncoder
from limner.captioners.prefix_inputs import Prefix, PrefixInputs, Row, Tensors
from limner.captioners.tree import PrefixedLM
from limner.captioners.words import after_prompt
from limner.decoding import Decoding
from limner.errors import UserError
from limner.paths import resolve
from limner.types import Sample


@dataclass(frozen=True)
class Settings(base.Captioner):
    """Settings of the decoder-only vision-language families."""

    train: tuple[str, ...] = ("*",)
    prompt: str = "Please describe this image in detail."
    packed: bool = True
    """Whether the captions of an image share one row, and its prefix, where their log-probabilities get a
    gradient; the gradient is the same, but costs less."""

    def adjust(self, processor: Any) -> None:
        """Change settings of the checkpoint's image processor.

        Raises:
            UserError: they do not go together.
        """

    def load(self, *, device: torch.device, dtype: torch.dtype) -> PrefixedPolicy:
        """Load a Hugging Face checkpoint of any image-text-to-text model.

        Raises:
            UserError: the checkpoint is missing, of another kind, or `train` names nothing in it.
        """
        from transformers import AutoModelForImageTextToText

        path = resolve(self.path)
        if self.weights:
            raise UserError("captioner.weights: only captioners with a Q-Former read such a file")
        with files.explained(path):
            model = files.loaded(AutoModelForImageTextToText, path, dtype=dtype, trust_remote_code=False)
            chat = Chat.load(path)
        self.adjust(chat.processor.image_processor)
        return PrefixedPolicy(self, model, chat).to(device)


class PrefixedPolicy(base.Policy[PrefixInputs]):
    """A loaded decoder-only vision-language model."""

    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __init__(self, settings: Settings, model: Any, chat: Chat):
        """Freeze all but `settings.train`.

        Raises:
            UserError: `train` names nothing in the checkpoint, or the class cannot be trained here.
        """
        super().__init__(settings)
        self.model: Any = model.eval()  # dropout would make log-probabilities differ from those at generation
        self.chat = chat
        self.processor = chat.processor.image_processor
        self.select_trained(settings.train)
        self.images = ImageEncoder(model)
        eos_ids, pad_id = special_tokens(model, chat.tokenizer)
        self.language_model.generation_config = model.generation_config
        never = placeholders(model.config)
        self.lm = PrefixedLM(model, self.images.output, eos_ids, pad_id, never, packed=settings.packed)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The language model's tokenizer."""
        return self.chat.tokenizer

    @property
    def vision(self) -> PreTrainedModel | None:
        """The frozen vision tower; None where a part of it is trained."""
        return self.images.vision

    @property
    def language_model(self) -> PreTrainedModel:
        """The language model, its output layer apart."""
        return self.model.base_model.get_decoder()

    def encode(self, samples: Sequence[Sample], prompt: str | None = None) -> PrefixInputs:
        """Rows of prompt and image features; all pictures of a sample stand before the prompt.

        The prompt is the one that is given here, or else the sample's own, or else the captioner's.
        """
        for sample in samples:
            if not sample.media:
                raise UserError(f"{sample.id}: this sample has no picture")
        asked = [(sample.media, self._asked(sample) if prompt is None else prompt) for sample in samples]
        with self._precision():
            return PrefixInputs(tuple(self.images.encode([self._row(row) for row in self.chat.rows(asked)])))

    def features(self, inputs: PrefixInputs) -> torch.Tensor:
        """(B, P, H) what the language model reads of the images, zero behind the shorter ones."""
        held = [row.features["pooler_output"][0].flatten(0, -2) for row in inputs.rows]
        return nn.utils.rnn.pad_sequence(held, batch_first=True)

    def prompt_positions(self, inputs: PrefixInputs) -> tuple[int, ...]:
        """The tokens of the chat, with the image tokens that stand in it."""
        return tuple(len(row.ids) for row in inputs.rows)

    def generate(
        self,
        inputs: PrefixInputs,
        decoding: Decoding,
        *,
        captions: int = 1,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """Captions from the features of `encode`; see base."""
        prefix = self._prefix(inputs, [row.features for row in inputs.rows])
        with self._precision():
            return self.lm.generate(prefix, decoding, captions=captions, generator=generator)

    def logprobs(
        self, inputs: PrefixInputs, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
    ) -> torch.Tensor:
        """Log-probabilities through all that is trained: tower, projector, language model."""
        with self._precision(), self.training_dropout():
            prefix = self._prefix(inputs, self.images.again(inputs.rows))
            return self.lm.logprobs(prefix, tokens, caption_mask, smoothing)

    def hidden(self, inputs: PrefixInputs, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """Hidden states behind the features of `encode`, which are constant here."""
        prefix = self._prefix(inputs, [row.features for row in inputs.rows])
        with self._precision():
            return self.lm.states(prefix, tokens, caption_mask)

    @torch.no_grad()
    def lm_logprobs(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """Log-probabilities after the chat prompt without a picture.

        Raises:
            UserError: the language model is trained, so that there is none alone and as it was.
        """
        if self.lm_trained:
            raise UserError(
                "captioner.train trains the language model itself: what needs it as it was (lm_logprobs) "
                "has none; train lora(q,v) in it instead"
            )
        inputs = PrefixInputs((self._row(self.chat.row((), self.settings.prompt)),))
        with self._precision(), self.without_adapters():
            return self.lm.logprobs(self._prefix(inputs, [{}]), tokens, caption_mask)

    def tokenised(
        self, texts: Sequence[str], longest: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions as the answer of the chat, for teacher forcing; see base."""
        end = self.chat.ends_turn(self.lm.eos_ids)
        before = self.settings.prompt if self.chat.template is None else ""
        rows = [[*after_prompt(self.tokenizer, before, text), end][:longest] for text in texts]
        tokens = nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=self.lm.pad_id
        )
        lengths = torch.tensor([len(row) for row in rows])
        caption_mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens.to(self.device), caption_mask.to(self.device)

    def save(self, folder: Path) -> None:
        """Write model, tokenizer and processor as one Hugging Face folder."""
        self.model.save_pretrained(folder, state_dict=dict(base.plain_state(self.model)))
        self.chat.save(folder, resolve(self.settings.path))

    def _asked(self, sample: Sample) -> str:
        """What a sample asks itself (`extra["prompt"]`), or else the captioner's prompt."""
        return str(sample.extra.get("prompt") or self.settings.prompt)

    def _row(self, row: Row) -> Row:
        """On the model's device, with the model's own positions."""
        row = row.to(self.device)
        if self.lm.axes == 1:
            return row
        if not row.pixels:
            return replace(row, positions=row.positions.expand(3, -1))
        positions, _ = self.model.base_model.get_rope_index(
            row.ids[None],
            **{name: mark[None] for name, mark in row.marks.items()},
            **{name: tensor for name, tensor in row.pixels.items() if name.endswith("grid_thw")},
        )
        return replace(row, positions=positions[:, 0])

    def _prefix(self, inputs: PrefixInputs, features: Sequence[Tensors]) -> Prefix:
        return Prefix.of(inputs.rows, features, self.lm.pad_id)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """Computes in the frozen parts' precision where trained parts are kept in float32 beside them."""
        if self.dtype == torch.float32 or not any(
            p.requires_grad and not base.is_adapter(n) for n, p in self.model.named_parameters()
        ):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def special_tokens(model: Any, tokenizer: Any) -> tuple[tuple[int, ...], int]:
    """The tokens that end a caption, and the one that stands after it."""
    generation = model.generation_config
    eos = generation.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError(f"{model.config.name_or_path}: neither model nor tokenizer says what ends a caption")
    eos_ids = tuple(eos) if isinstance(eos, list | tuple) else (int(eos),)
    pad = generation.pad_token_id if generation.pad_token_id is not None else tokenizer.pad_token_id
    generation.eos_token_id = list(eos_ids)
    return eos_ids, eos_ids[0] if pad is None or pad < 0 else int(pad)


def placeholders(config: Any) -> tuple[int, ...]:
    """The tokens at which the model puts image tokens."""
    found = [getattr(config, f"{kind}_token_id", None) for kind in ("image", "video")]
    return tuple(token for token in found if token is not None)
