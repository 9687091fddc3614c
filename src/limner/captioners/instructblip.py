"""InstructBLIP captioners: frozen ViT -> Q-Former that reads the prompt too -> projection -> language model.

Source: InstructBLIP as in transformers' InstructBlipForConditionalGeneration. Frames stand one after another
before one Q-Former, as arXiv 2502.13363 has it for this model too; transformers' own InstructBlipVideo asks
the Q-Former once a frame instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, InstructBlipForConditionalGeneration, PreTrainedTokenizerFast

from limner.captioners import files, qformer
from limner.captioners.base import TensorInputs
from limner.errors import UserError
from limner.paths import resolve

QFORMER_TOKENIZER = "qformer_tokenizer"
"""The folder of the checkpoint that holds the Q-Former's tokenizer."""


@dataclass(frozen=True)
class Captioner(qformer.Settings):
    """InstructBLIP with a Llama-like (Vicuna) or an encoder-decoder (FLAN-T5) language model."""

    family = "instructblip"

    @classmethod
    def matches(cls, config: Mapping[str, object]) -> bool:
        """Whether config.json is InstructBLIP's."""
        return config.get("model_type") == "instructblip"

    def load(self, *, device: torch.device, dtype: torch.dtype) -> InstructBlipPolicy:
        """Load a Hugging Face InstructBLIP checkpoint, and partial weights over it where given."""
        path = resolve(self.path)
        with files.explained(path):
            kind = InstructBlipForConditionalGeneration
            model = files.loaded(kind, path, absent=self.replaced, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            reader = AutoTokenizer.from_pretrained(path, subfolder=QFORMER_TOKENIZER, trust_remote_code=False)
            processor = self.image_processor(path)
        # It was trained to write the tokenizer's end; a Llama's configuration may name another token.
        model.language_model.generation_config.eos_token_id = tokenizer.eos_token_id
        self.prepare(model)
        return InstructBlipPolicy(self, model, tokenizer, processor, reader=reader).to(device)


class InstructBlipPolicy(qformer.QFormerPolicy):
    """A loaded InstructBLIP; its inputs hold `instruction` (B, L) too, the prompt for the Q-Former."""

    model: InstructBlipForConditionalGeneration

    def __init__(self, settings: Captioner, model, tokenizer, processor, *, reader: PreTrainedTokenizerFast):
        """With the Q-Former's tokenizer; see `qformer.QFormerPolicy`."""
        super().__init__(settings, model, tokenizer, processor)
        self.reader = reader

    def instruction(self, prompt: str, rows: int) -> dict[str, torch.Tensor]:
        """The prompt's ids in the Q-Former's vocabulary, (rows, L).

        Raises:
            UserError: the prompt has more tokens than the Q-Former has positions.
        """
        ids = torch.tensor(self.reader(prompt)["input_ids"], dtype=torch.long, device=self.device)
        beyond = len(ids) - self.model.qformer.config.max_position_embeddings
        if beyond > 0:
            raise UserError(f"the prompt is too long: {beyond} tokens more than the Q-Former has positions")
        return {"instruction": ids.expand(rows, -1)}

    def query(self, inputs: TensorInputs, features: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """(B, Q, Dq) the Q-Former's output at the queries, which have read prompt and image."""
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        out = self.model.qformer(
            input_ids=inputs.tensors["instruction"],
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=seen,
        )
        return out.last_hidden_state[:, : queries.shape[1]]

    def save(self, folder: Path) -> None:
        """Write one Hugging Face folder, the Q-Former's tokenizer in a folder of its own."""
        super().save(folder)
        self.reader.save_pretrained(folder / QFORMER_TOKENIZER)
