"""What every captioner family is: settings that load a policy, and the policy the loop talks to.

The contract is `logprobs(inputs, tokens, caption_mask)`: decoder-only and encoder-decoder families satisfy
it alike, and the loop never sees whole-sequence input ids.
"""

from __future__ import annotations

import abc
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import nn

from limner.captioners.words import split
from limner.decoding import Decoding
from limner.errors import UserError
from limner.types import ModelInputs, Rollouts, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

VALUE_ADAPTER = "value"
Inputs = TypeVar("Inputs", bound=ModelInputs)


@dataclass(frozen=True)
class TensorInputs:
    """Model inputs that are tensors with one row a sample: enough for most families."""

    tensors: Mapping[str, torch.Tensor]
    """Named tensors, all with the same first dimension."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.tensors.values())))

    def select(self, rows: torch.Tensor) -> Self:
        """The given rows (int64 indices), in the given order."""
        return type(self)({name: tensor[rows] for name, tensor in self.tensors.items()})

    def repeat(self, captions: int) -> Self:
        """Every row `captions` times in a row."""
        return type(self)({name: t.repeat_interleave(captions, 0) for name, t in self.tensors.items()})

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        return type(self)({name: tensor.to(device) for name, tensor in self.tensors.items()})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All rows of the parts, in order."""
        return cls({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})


@dataclass(frozen=True)
class Generated:
    """Captions as token ids: what `generate` returns. N = B * captions rows."""

    tokens: torch.Tensor
    """(N, T) int64, the end-of-sequence token included, padding after it."""
    caption_mask: torch.Tensor
    """(N, T) bool, True on generated tokens including the end-of-sequence token."""
    logprobs: torch.Tensor
    """(N, T) float32 log-probabilities before temperature and top-k; 0 on padding."""
    ended: torch.Tensor
    """(N,) bool, True where the last token is the end-of-sequence token."""


@dataclass(frozen=True)
class Captioner(abc.ABC):
    """Settings of one captioner family. A family's file holds one subclass with this name."""

    path: str
    """A Hugging Face checkpoint: hub id, folder, or `world:captioner` for the packaged miniature."""
    train: tuple[str, ...] = ()
    """Names of the parts that the policy loss trains (parameter names or their leading parts, * allowed)."""
    prompt: str = ""
    """Text put before every caption."""
    weights: str | None = None
    """A file with the trained part only (published VLRM form), loaded over the checkpoint."""

    family: ClassVar[str] = ""

    @classmethod
    @abc.abstractmethod
    def matches(cls, config: Mapping[str, object]) -> bool:
        """Whether a checkpoint with this config.json belongs to the family."""

    @abc.abstractmethod
    def load(self, *, device: torch.device, dtype: torch.dtype) -> Policy:
        """Load the checkpoint.

        Raises:
            UserError: the checkpoint is missing, of another family, or `train` names nothing in it.
        """


class Policy(nn.Module, abc.ABC, Generic[Inputs]):
    """A loaded captioner: it encodes, generates, and gives log-probabilities with gradient."""

    model: Any
    """The Hugging Face model; each family declares its class."""
    lora_targets: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Captioner):
        """Keep the settings."""
        super().__init__()
        self.settings = settings

    @property
    @abc.abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The Hugging Face fast tokenizer of the captions."""

    processor: Any
    """The Hugging Face image processor in front of the image encoder."""

    @property
    @abc.abstractmethod
    def vision(self) -> PreTrainedModel | None:
        """The frozen image encoder that `features` comes from, where there is one."""

    @property
    @abc.abstractmethod
    def language_model(self) -> PreTrainedModel:
        """The one copy of the language model: policy, values (adapter on) and reference (no image)."""

    @abc.abstractmethod
    def encode(self, samples: Sequence[Sample], prompt: str | None = None) -> Inputs:
        """Inputs of B samples; frozen parts run here, once."""

    @abc.abstractmethod
    def features(self, inputs: Inputs) -> torch.Tensor:
        """(B, P, D) features of the frozen image encoder, computed by `encode`."""

    @abc.abstractmethod
    def generate(
        self,
        inputs: Inputs,
        decoding: Decoding,
        *,
        captions: int = 1,
        generator: torch.Generator | None = None,
    ) -> Generated:
        """`captions` captions a row, without gradient: N = B * captions rows, one sample's together."""

    @abc.abstractmethod
    def logprobs(self, inputs: Inputs, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) log-probabilities of the tokens, with gradient to the trained parts; 0 outside the mask.

        `inputs` has N rows, or B rows that are shared by G captions each.
        """

    @abc.abstractmethod
    def hidden(self, inputs: Inputs, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """(N, T, H) last hidden states of the positions that predict each token: what a value head reads.

        Gradient reaches adapters of the language model only; the visual prefix is constant.
        """

    @abc.abstractmethod
    def lm_logprobs(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> torch.Tensor:
        """(N, T) log-probabilities of the frozen language model alone: no image, adapter or gradient."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def hidden_size(self) -> int:
        """H, the width of `hidden`."""
        return int(self.language_model.config.hidden_size)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that the policy loss trains, by their name in the Hugging Face checkpoint."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad and not is_adapter(n)}

    def select_trained(self, patterns: Sequence[str]) -> None:
        """Freeze everything but what the patterns name.

        Raises:
            UserError: a pattern names no parameter.
        """
        names = [name for name, _ in self.model.named_parameters()]
        for pattern in patterns:
            if not any(names_part(name, pattern) for name in names):
                parts = ", ".join(sorted({name.split(".")[0] for name in names}))
                raise UserError(
                    f"captioner.train: {pattern!r} names no parameter of {self.settings.path}; "
                    f"its parts: {parts}"
                )
        for name, parameter in self.model.named_parameters():
            chosen = any(names_part(name, pattern) for pattern in patterns)
            parameter.requires_grad_(chosen)
            if chosen:
                # A step of 1e-5 is lost in half precision: what is trained is kept in float32.
                parameter.data = parameter.data.float()

    def texts(self, tokens: torch.Tensor, caption_mask: torch.Tensor) -> tuple[str, ...]:
        """N decoded captions, special tokens left out, stripped."""
        rows = [row[keep].tolist() for row, keep in zip(tokens.cpu(), caption_mask.cpu(), strict=True)]
        return tuple(t.strip() for t in self.tokenizer.batch_decode(rows, skip_special_tokens=True))

    def caption(
        self, samples: Sequence[Sample], decoding: Decoding, *, prompt: str | None = None
    ) -> list[str]:
        """One caption a sample."""
        made = self.generate(self.encode(samples, prompt), decoding)
        return list(self.texts(made.tokens, made.caption_mask))

    def rollouts(self, samples: Sequence[Sample], inputs: Inputs, made: Generated) -> Rollouts:
        """Generated captions with their texts and words."""
        rows = zip(made.tokens.cpu(), made.caption_mask.cpu(), strict=True)
        words = tuple(split(self.tokenizer, row, keep) for row, keep in rows)
        texts = self.texts(made.tokens, made.caption_mask)
        return Rollouts(
            tuple(samples), inputs, made.tokens, made.caption_mask, made.logprobs, made.ended, texts, words
        )

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write a checkpoint that plain transformers loads, adapters left out."""


def names_part(name: str, pattern: str) -> bool:
    """Whether a parameter name is, lies under, or matches the pattern."""
    return name == pattern or name.startswith(pattern + ".") or fnmatch.fnmatchcase(name, pattern)


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to a LoRA adapter."""
    return ".lora_" in name


def plain_state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The module's state under its checkpoint names, adapters left out and their wrapping undone."""
    for name, tensor in module.state_dict().items():
        if not is_adapter(name):
            yield name.replace(".base_layer.", "."), tensor
