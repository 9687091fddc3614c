"""What every captioner family is: settings that load a policy, and the policy the loop talks to.

The contract is `logprobs(inputs, tokens, caption_mask)`: decoder-only and encoder-decoder families satisfy
it alike, and the loop never sees whole-sequence input ids.
"""

from __future__ import annotations

import abc
import contextlib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

import torch
from annotated_types import Ge, Gt, Lt
from rich.table import Table
from torch import nn

from limner import distributed
from limner.captioners import adapters
from limner.captioners.adapters import POLICY_ADAPTER, VALUE_ADAPTER, is_adapter
from limner.captioners.inputs import TensorInputs
from limner.captioners.words import after_prompt, split
from limner.decoding import Decoding
from limner.errors import UserError
from limner.types import ModelInputs, Rollouts, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = [
    "POLICY_ADAPTER",
    "VALUE_ADAPTER",
    "Captioner",
    "Generated",
    "Policy",
    "TensorInputs",
    "is_adapter",
]
Inputs = TypeVar("Inputs", bound=ModelInputs)


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
    """Names of the parts that the policy loss trains: parameter names or their leading parts, * allowed.

    `lora(q,v)` trains low-rank adapters of these projections of the language model.
    """
    prompt: str = ""
    """Text put before every caption."""
    weights: str | None = None
    """A file with the trained part only (published VLRM form), loaded over the checkpoint."""
    lora_rank: Annotated[int, Ge(1)] = 8
    """Rank of `lora(...)`."""
    lora_alpha: Annotated[float, Gt(0)] = 16.0
    """The adapter's output is multiplied by this over the rank."""
    lora_dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the adapter's input that is dropped where log-probabilities are computed with gradient.

    Captions are searched for and scored without it. For cross-entropy (0.05 is published); 0 for SCST, where
    the caption that is scored again must have the score of the search.
    """

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
    """Linear layers of the language model that the value adapter is put into."""
    partial_parts: ClassVar[tuple[str, ...]] = ()
    """The parts that `weights` holds; empty where the family reads no such file."""

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
    dtype: torch.dtype
    """The number format of the run: that of all weights but the trained ones, which are in float32."""

    @property
    @abc.abstractmethod
    def vision(self) -> PreTrainedModel | None:
        """The frozen image encoder that `features` comes from; None where there is none or it is trained."""

    @property
    @abc.abstractmethod
    def language_model(self) -> PreTrainedModel:
        """The one copy of the language model: policy, values (adapter on) and reference (no image)."""

    @abc.abstractmethod
    def encode(self, samples: Sequence[Sample], prompt: str | None = None) -> Inputs:
        """Inputs of B samples; frozen parts run here, once."""

    @abc.abstractmethod
    def features(self, inputs: Inputs) -> torch.Tensor:
        """(B, P, D) features of the frozen image encoder, computed by `encode`; frame after frame."""

    @abc.abstractmethod
    def prompt_positions(self, inputs: Inputs) -> tuple[int, ...]:
        """B numbers: how many positions of the language model a row's image tokens and prompt take."""

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
    def logprobs(
        self, inputs: Inputs, tokens: torch.Tensor, caption_mask: torch.Tensor, smoothing: float = 0.0
    ) -> torch.Tensor:
        """(N, T) log-probabilities of the tokens, with gradient to the trained parts; 0 outside the mask.

        Args:
            inputs: N rows, or B rows that are shared by G captions each.
            tokens: (N, T) int64.
            caption_mask: (N, T) bool.
            smoothing: e in [0, 1): (1 - e) log p(token) + e (mean of log p over the vocabulary), which is
                minus torch's cross_entropy(label_smoothing=e).
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
    def lm_trained(self) -> bool:
        """Whether the language model itself is trained, so that there is none as it was."""
        named = self.language_model.named_parameters()
        return any(parameter.requires_grad and not is_adapter(name) for name, parameter in named)

    @property
    def hidden_size(self) -> int:
        """H, the width of `hidden`."""
        return int(self.language_model.config.hidden_size)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that the policy loss trains, the policy's LoRA with them.

        By their names in the Hugging Face checkpoint; those of a LoRA stand under the layer they adapt.
        """
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and not is_adapter(name, VALUE_ADAPTER)
        }

    def select_trained(self, patterns: Sequence[str]) -> None:
        """Freeze everything but what the patterns name; `lora(q,v)` puts adapters into the language model.

        Raises:
            UserError: a pattern names nothing.
        """
        self.dtype = self.model.dtype
        parts, projections = adapters.parts_and_projections(patterns)
        names = [name for name, _ in self.model.named_parameters()]
        for pattern in parts:
            if not any(names_part(name, pattern) for name in names):
                known = ", ".join(sorted({name.split(".")[0] for name in names}))
                none = f"names no parameter of {self.settings.path}; its parts: {known}"
                raise UserError(f"captioner.train: {pattern!r} {none}")
        for name, parameter in self.model.named_parameters():
            chosen = any(names_part(name, pattern) for pattern in parts)
            parameter.requires_grad_(chosen)
            if chosen:
                parameter.data = parameter.data.float()  # a step of 1e-5 is lost in half precision
        if projections:
            self._add_lora(projections)

    def _add_lora(self, projections: Sequence[str]) -> None:
        """Put the policy's adapter in. It starts as nothing (B = 0); A is the same in every run."""
        settings, model = self.settings, self.language_model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            adapters.add(
                model, POLICY_ADAPTER, layers=adapters.targets(model, projections),
                rank=settings.lora_rank, alpha=settings.lora_alpha, dropout=settings.lora_dropout,
            )  # fmt: skip
        model.eval()
        adapters.switch(model, on=(POLICY_ADAPTER,), trained=POLICY_ADAPTER)

    @contextlib.contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The language model as it was before training, bit for bit."""
        adapters.switch(self.language_model, on=(), trained=POLICY_ADAPTER)
        try:
            yield
        finally:
            adapters.switch(self.language_model, on=(POLICY_ADAPTER,), trained=POLICY_ADAPTER)

    @contextlib.contextmanager
    def at(self, parameters: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """The policy with other values of its trained parameters inside, by the names of `trained`."""
        trained = self.trained()
        now = {name: parameter.data for name, parameter in trained.items()}
        try:
            for name, parameter in trained.items():
                parameter.data = distributed.complete(parameters[name])
            yield
        finally:
            for name, parameter in trained.items():
                parameter.data = now[name]

    def training_dropout(self) -> contextlib.AbstractContextManager[None]:
        """`lora_dropout` is active inside, where gradient is computed; without gradient never."""
        if self.settings.lora_dropout and torch.is_grad_enabled():
            return adapters.dropping(self.language_model, POLICY_ADAPTER)
        return contextlib.nullcontext()

    def tokenised(
        self, texts: Sequence[str], longest: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions as the policy itself would generate them after its prompt, for teacher forcing.

        White space is made single, and words that look like special tokens stay words. A caption ends with
        the end-of-sequence token unless it is cut.

        Args:
            texts: N captions.
            longest: tokens a caption at most, the end-of-sequence token included.

        Returns:
            tokens (N, T) int64 and caption_mask (N, T) bool, on the policy's device, padded on the right.
        """
        eos = self.language_model.generation_config.eos_token_id
        end = int(eos[0] if isinstance(eos, list) else eos)
        prompt = "" if self.language_model.config.is_encoder_decoder else self.settings.prompt
        rows = [[*after_prompt(self.tokenizer, prompt, text), end][:longest] for text in texts]
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        caption_mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens.to(self.device), caption_mask.to(self.device)

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
        """Write a checkpoint that plain transformers loads: the policy's LoRA merged, no other adapter."""


def names_part(name: str, pattern: str) -> bool:
    """Whether a parameter name is, lies under, or matches the pattern."""
    return name == pattern or name.startswith(pattern + ".") or fnmatch.fnmatchcase(name, pattern)


def plain_state(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The module's state under its checkpoint names: the policy's LoRA merged, other adapters left out."""
    return adapters.merged(module)


def trained_table(policy: Policy) -> Table:
    """What trains and what is frozen, a row a part, with counts of parameters."""
    counts: dict[str, list[int]] = {}
    for name, parameter in policy.model.named_parameters():
        if is_adapter(name, VALUE_ADAPTER):
            continue
        part = name.split(".")[0] + (" (LoRA)" if is_adapter(name) else "")
        row = counts.setdefault(part, [0, 0])
        row[0] += parameter.numel() * parameter.requires_grad
        row[1] += parameter.numel()
    counts["all"] = [sum(row[i] for row in counts.values()) for i in range(2)]
    table = Table("part", "trained", "parameters", "share")
    for part, (trained, total) in counts.items():
        table.add_row(part, f"{trained:,}", f"{total:,}", f"{trained / total:.2%}")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
