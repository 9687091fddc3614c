"""A causal language model in this process that answers questions.

`letters` reads the answer to a multiple-choice question from the next-token log-probabilities of the option
letters, all questions about a caption in one pass (see `packed.py`); `ask` writes an answer token by token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from limner.answering.base import Conversation, Reply
from limner.answering.draw import number
from limner.answering.packed import Packed
from limner.answering.settings import MAX_TOKENS
from limner.captioners.files import explained, read_config
from limner.errors import UserError
from limner.paths import resolve
from limner.questions import LETTERS

_SPACE = "Ġ▁Ċ \n\t"
"""How tokenizers write white space within a token."""


@dataclass(frozen=True)
class LetterScores:
    """How likely each letter is as the next token of one prompt."""

    logprobs: torch.Tensor | None
    """(letters,) float32 log-probabilities over the whole vocabulary; None where there are none."""
    error: str = ""
    """Why there are none; empty where there are some."""
    tokens: int = 0
    """Tokens of the prompt."""


class LocalModel:
    """A frozen causal language model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, name: str, max_tokens: int):
        """Wrap a loaded model; see `load`."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.packed = Packed(self.model, max_tokens=max_tokens)
        self.letter_ids = letter_tokens(tokenizer)
        self.eos_ids = _eos_ids(model, tokenizer)
        self.positions = _positions(model.config.get_text_config().to_dict())
        special = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        # What a checkpoint recommends for chatting (penalties, top_k) is no part of an answer's distribution.
        model.generation_config = GenerationConfig()

    @classmethod
    def load(
        cls, path: str, *, device: torch.device, dtype: torch.dtype, max_tokens: int = MAX_TOKENS
    ) -> LocalModel:
        """Load any causal language model of Hugging Face.

        Args:
            path: hub id, folder, or a model of the miniature world.
            device: where it goes.
            dtype: number format of its weights.
            max_tokens: tokens in one pass, padding included.

        Raises:
            UserError: the checkpoint can't be loaded, or is no causal language model.
        """
        kind = read_config(path).get("model_type")
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise UserError(f"{path}: a model of type {kind} is not a causal language model")
        where = resolve(path)
        with explained(path):
            model: Any = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        return cls(model.to(device), tokenizer, name=path, max_tokens=max_tokens)

    def letters(self, groups: Sequence[Sequence[tuple[Conversation, int]]]) -> list[list[LetterScores]]:
        """How likely each option letter is as the next token, without writing anything.

        Args:
            groups: the prompts of one caption each, with the number of options; what the prompts of a group
                have in common from their beginning is read once.

        Returns:
            As many scores a group as it has prompts. A prompt that can't be read never touches the others.
        """
        asked = [prompt for group in groups for prompt in group]
        rows = self.tokens([conversation for conversation, _ in asked])
        errors = [self._unreadable(row, options) for row, (_, options) in zip(rows, asked, strict=True)]
        letters = LETTERS[: max((options for _, options in asked), default=0)]
        columns = [id for letter in letters for id in self.letter_ids[letter]]
        places = iter(range(len(asked)))
        own = [[place for place in islice(places, len(group)) if not errors[place]] for group in groups]
        found = self.packed.logprobs([[rows[place] for place in group] for group in own], columns)
        logprobs = self._by_letter(torch.cat(found), letters) if found else torch.empty(0, 0)
        finite = iter(zip(logprobs, logprobs.isfinite().tolist(), strict=True))
        scores = iter([
            LetterScores(None, error, len(row)) if error
            else _score(*next(finite), options=options, tokens=len(row))
            for row, error, (_, options) in zip(rows, errors, asked, strict=True)
        ])  # fmt: skip
        return [list(islice(scores, len(group))) for group in groups]

    def ask(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[Reply]:
        """Written answers, in batches of like length.

        What a prompt is answered depends on the seed and the prompt alone, never on what is asked beside it.

        Args:
            conversations: what is asked; text only.
            max_new_tokens: the longest answer.
            temperature: 0 is greedy.
            seed: of the sampling.
        """
        replies: list[Reply] = []
        rows: dict[int, list[int]] = {}
        for place, ids in enumerate(self.tokens(conversations)):
            error = self._unreadable(ids, 0, new=max_new_tokens)
            replies.append(Reply(None, error, len(ids)))
            if not error:
                rows[place] = ids
        order = sorted(rows, key=lambda place: len(rows[place]))
        size = 0
        while order:
            size = _fitting([len(rows[place]) + max_new_tokens for place in order], self.packed.max_tokens)
            chosen, order = order[:size], order[size:]
            written = self._generate(
                [rows[place] for place in chosen], max_new_tokens, temperature=temperature, seed=seed
            )
            for place, answer in zip(chosen, written, strict=True):
                text = self.tokenizer.decode(answer, skip_special_tokens=True)
                replies[place] = Reply(str(text).strip(), "", len(rows[place]), len(answer))
        return replies

    def tokens(self, conversations: Sequence[Conversation]) -> list[list[int]]:
        """Token ids of conversations up to where the answer begins.

        By the tokenizer's chat template, or where it has none the texts one below the other. What looks like
        a special token within a text stays out of it: a caption can't end the user's turn. Each prompt is
        cut into tokens as a whole: tokens may reach over the end of the caption. Equal ones are cut once.

        Raises:
            UserError: the content of a message is not text.
        """
        templated = self.tokenizer.chat_template is not None
        texts = [self._text(conversation) for conversation in conversations]
        unlike = list(dict.fromkeys(texts))
        if not unlike:
            return []
        cut: list[list[int]] = self.tokenizer(unlike, add_special_tokens=not templated)["input_ids"]
        ids = dict(zip(unlike, cut, strict=True))
        if not templated:  # some tokenizers end every text
            ids = {text: self._unended(row) for text, row in ids.items()}
        return [ids[text] for text in texts]

    def _text(self, conversation: Conversation) -> str:
        """What is read of a conversation."""
        messages = [{**message, "content": self._plain(message)} for message in conversation]
        if self.tokenizer.chat_template is None:
            return "\n".join(message["content"] for message in messages)
        return str(
            self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    def _unended(self, ids: list[int]) -> list[int]:
        while ids and ids[-1] in self.eos_ids:
            ids = ids[:-1]
        return ids

    def _by_letter(self, values: torch.Tensor, letters: str) -> torch.Tensor:
        """(rows, letters) log-probabilities, from those of all tokens that are the letters; -inf for none."""
        own = values.split([len(self.letter_ids[letter]) for letter in letters], 1)
        return torch.stack([part.logsumexp(1) for part in own], 1)

    def _plain(self, message: Mapping[str, Any]) -> str:
        content = message["content"]
        if not isinstance(content, str):
            if any(part.get("type") != "text" for part in content):
                raise UserError(f"{self.name}: reads text only, and was shown an image")
            content = "\n".join(part["text"] for part in content)
        return self._special.sub(" ", content)

    def _unreadable(self, ids: Sequence[int], options: int, new: int = 0) -> str:
        """Why a prompt can't be answered; empty where it can."""
        if not ids:
            return "an empty prompt"
        if len(ids) + new > self.positions:
            room = f" and an answer of up to {new}" if len(ids) <= self.positions else ""
            return f"a prompt of {len(ids)} tokens{room}; the model has {self.positions} positions"
        lacking = [letter for letter in LETTERS[:options] if not self.letter_ids[letter]]
        return f"the tokenizer has no token for the letter {lacking[0]}" if lacking else ""

    @torch.no_grad()
    def _generate(
        self, rows: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float, seed: int
    ) -> list[list[int]]:
        """Token ids written after each row, without the end-of-sequence token."""
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        chooser = LogitsProcessorList()
        if temperature > 0:
            chooser.append(Chooser([number(seed, *row) for row in rows], temperature, longest))
        written = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(self.eos_ids) or None,
                pad_token_id=min(self.eos_ids, default=0),
            ),
            logits_processor=chooser,
        )[:, longest:].tolist()
        return [_until(row, self.eos_ids) for row in written]


class Chooser(LogitsProcessor):
    """Samples every row with numbers of its own, so that an answer does not depend on what is beside it."""

    def __init__(self, seeds: Sequence[int], temperature: float, start: int):
        """One seed a row; answers begin at position `start`."""
        self.seeds = seeds
        self.temperature = temperature
        self.start = start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(rows, V) scores with all but the drawn token at minus infinity."""
        place = input_ids.shape[1] - self.start
        draws = torch.tensor([number(seed, place) / 2**64 for seed in self.seeds], dtype=torch.float64)
        shares = (scores.float() / self.temperature).softmax(-1).double().cumsum(-1)
        chosen = (shares < draws.to(scores.device)[:, None] * shares[:, -1:]).sum(-1, keepdim=True)
        only = torch.full_like(scores, -torch.inf)
        return only.scatter(1, chosen.clamp(max=scores.shape[1] - 1), 0.0)


def letter_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Token ids that are nothing but an option letter, with white space or without; in order."""
    found: dict[str, list[int]] = {letter: [] for letter in LETTERS}
    for token, id in tokenizer.get_vocab().items():
        letter = token.strip(_SPACE).removesuffix("</w>")
        if letter in found and len(letter) == 1:
            found[letter].append(id)
    return {letter: sorted(ids) for letter, ids in found.items()}


def _score(logprobs: torch.Tensor, finite: list[bool], *, options: int, tokens: int) -> LetterScores:
    """The score of a prompt from the log-probabilities of as many letters as it has options, or more."""
    if not all(finite[:options]):
        return LetterScores(None, "the model's output is not a number", tokens)
    return LetterScores(logprobs[:options], "", tokens)


def _fitting(lengths: Sequence[int], max_tokens: int) -> int:
    """How many of the rows, sorted by length, go through together; at least one."""
    size = 1
    while size < len(lengths) and (size + 1) * lengths[size] <= max_tokens:
        size += 1
    return size


def _eos_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids that end an answer: the model's and the tokenizer's."""
    ends = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(id for id in [*listed, tokenizer.eos_token_id] if id is not None)


def _positions(config: Mapping[str, Any]) -> int:
    """The longest sequence a model takes."""
    return int(config.get("max_position_embeddings") or config.get("n_positions") or 2**62)


def _until(ids: Sequence[int], ends: frozenset[int]) -> list[int]:
    """The ids before the first that ends an answer."""
    return list(ids[: next((k for k, id in enumerate(ids) if id in ends), len(ids))])
