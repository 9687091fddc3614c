"""Frozen models that judge a caption against an image: BLIP-2's image-text matching (ITM) and CLIP.

Both are the classes of transformers, so any checkpoint of those classes loads: `Salesforce/blip2-itm-vit-g`, OpenAI's CLIP,
OpenCLIP checkpoints converted to HF. Images go through the checkpoint's own preprocessing on Pillow, texts through its own
tokenizer, cut at the longest text the model has positions for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from PIL import Image
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Blip2ForImageTextRetrieval,
    CLIPModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor

from limner.errors import UserError
from limner.paths import resolve

M = TypeVar("M", bound=PreTrainedModel)

MATCH = 1
"""Index of the class "the text describes the image" in the ITM head of `Blip2ForImageTextRetrieval`.

BLIP-2 was trained with label 1 for true pairs, and transformers' own doctest reads "is 'two cats ...'" off index 1. The tests
check it on the miniature world's model, whose true captions win at this index.
"""


class ItmModel:
    """Image-text matching of BLIP-2, split so that the vision tower runs once an image and may be shared."""

    def __init__(
        self,
        model: Blip2ForImageTextRetrieval,
        tokenizer: PreTrainedTokenizerBase,
        *,
        image_processor: BaseImageProcessor,
    ):
        """Hold a loaded model; `load_itm` makes one from a path."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.max_tokens = min(tokenizer.model_max_length, model.config.qformer_config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def vision(self) -> nn.Module:
        """The vision tower; assign another module with equal weights to hold one copy instead of two."""
        return self.model.vision_model

    @vision.setter
    def vision(self, tower: nn.Module) -> None:
        self.model.vision_model = tower

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Image features of (B,) RGB images: (B, P, D), P patches and the class token, on the model's device."""
        pixels = _pixels(self.image_processor, images, model=self.model)
        return self.vision(pixel_values=pixels).last_hidden_state

    @torch.no_grad()
    def logits(self, features: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Logits of R pairs before the softmax, averaged over the queries (VLRM, arXiv 2404.01911, section 3.4).

        Args:
            features: (R, P, D) image features, one row a text.
            texts: R texts; an empty one is scored like any other.

        Returns:
            (R, 2) float32; column `MATCH` says how well text and image fit, higher is better.
        """
        model = self.model
        rows, queries = len(texts), model.config.num_query_tokens
        ids, text_mask = _padded_ids(self.tokenizer, texts, max_tokens=self.max_tokens)
        query_mask = torch.ones(rows, queries, dtype=torch.bool)
        embeddings = model.embeddings(
            input_ids=ids.to(self.device), query_embeds=model.query_tokens.expand(rows, -1, -1)
        )
        hidden = model.qformer(
            query_embeds=embeddings,
            query_length=queries,
            attention_mask=torch.cat([query_mask, text_mask], 1).to(self.device, torch.long),
            encoder_hidden_states=features.to(self.device),
        ).last_hidden_state[:, :queries]
        return model.itm_head(hidden.to(model.itm_head.weight.dtype)).mean(1).float()

    def match(self, features: torch.Tensor, texts: Sequence[str], *, micro_batch: int = 256) -> torch.Tensor:
        """The match logit of every text against its image, in chunks of texts of like length.

        Args:
            features: (B, P, D) features of B images; text n belongs to image n // (N / B).
            texts: N = B*G texts.
            micro_batch: texts in one pass.

        Returns:
            (N,) float32 on the CPU.
        """
        captions = len(texts) // len(features)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        scores = torch.empty(len(texts))
        for start in range(0, len(order), micro_batch):
            rows = order[start : start + micro_batch]
            images = torch.tensor([row // captions for row in rows], device=features.device)
            scores[rows] = self.logits(features[images], [texts[row] for row in rows])[:, MATCH].cpu()
        return scores


class ClipModel:
    """CLIP's two towers: unit vectors of images and of texts, whose inner product is their similarity."""

    def __init__(
        self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, *, image_processor: BaseImageProcessor
    ):
        """Hold a loaded model; `load_clip` makes one from a path."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.max_tokens = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], *, micro_batch: int = 64) -> torch.Tensor:
        """(B, D) float32 unit vectors of B RGB images, on the model's device; cropped as the checkpoint says."""
        chunks = [
            self.model.get_image_features(
                pixel_values=_pixels(
                    self.image_processor, images[start : start + micro_batch], model=self.model
                )
            ).pooler_output
            for start in range(0, len(images), micro_batch)
        ]
        return nn.functional.normalize(torch.cat(chunks).float(), dim=-1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], *, micro_batch: int = 256) -> torch.Tensor:
        """(N, D) float32 unit vectors of N texts, on the model's device; texts longer than the model reads are cut."""
        chunks = []
        for start in range(0, len(texts), micro_batch):
            ids, mask = _padded_ids(
                self.tokenizer, texts[start : start + micro_batch], max_tokens=self.max_tokens
            )
            output = self.model.get_text_features(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device, torch.long)
            )
            chunks.append(output.pooler_output)
        return nn.functional.normalize(torch.cat(chunks).float(), dim=-1)


def load_itm(
    path: str, device: torch.device | str = "cpu", *, dtype: torch.dtype | str = "float32"
) -> ItmModel:
    """The ITM model of a folder or hub id (`world:itm`: the miniature world's).

    Raises:
        UserError: nothing can be loaded from there, or it is no ITM checkpoint, or some of its weights are missing.
    """
    model = _load(Blip2ForImageTextRetrieval, path, dtype=dtype)
    return ItmModel(model.to(device), _tokenizer(path), image_processor=load_image_processor(path))


def load_clip(
    path: str, device: torch.device | str = "cpu", *, dtype: torch.dtype | str = "float32"
) -> ClipModel:
    """The CLIP of a folder or hub id (`world:clip`: the miniature world's).

    Raises:
        UserError: nothing can be loaded from there, or it is no CLIP checkpoint, or some of its weights are missing.
    """
    model = _load(CLIPModel, path, dtype=dtype)
    return ClipModel(model.to(device), _tokenizer(path), image_processor=load_image_processor(path))


def load_image_processor(path: str) -> BaseImageProcessor:
    """The image preprocessing saved beside a checkpoint, on Pillow, so that torchvision is not needed.

    Raises:
        UserError: the checkpoint has none.
    """
    try:
        return AutoImageProcessor.from_pretrained(resolve(path), backend="pil")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot load its image processor: {_first_line(error)}") from error


def _tokenizer(path: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(resolve(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot load its tokenizer: {_first_line(error)}") from error


def _load(kind: type[M], path: str, *, dtype: torch.dtype | str) -> M:
    """A model of exactly this class with every weight found: transformers would fill gaps with random numbers."""
    folder = resolve(path)
    try:
        config, _ = PretrainedConfig.get_config_dict(folder)
        found = config.get("model_type")
        if found != kind.config_class.model_type:
            raise UserError(f"{path}: is a {found!r} checkpoint, needed is {kind.config_class.model_type!r}")
        model, info = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot load {kind.__name__}: {_first_line(error)}") from error
    missing = sorted(info["missing_keys"] | {key for key, *_ in info["mismatched_keys"]})
    if missing:
        raise UserError(
            f"{path}: {len(missing)} weights of {kind.__name__} are missing there, for example {missing[0]}; "
            "give a checkpoint that was saved from this class"
        )
    return model


def _pixels(
    processor: BaseImageProcessor, images: Sequence[Image.Image], *, model: PreTrainedModel
) -> torch.Tensor:
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    return pixels.to(model.device, model.dtype)


def _padded_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, L) int64 ids padded on the right and their (R, L) bool mask; at least one column, also of empty texts."""
    rows = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    width = max(1, *map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], dtype=torch.long)
    mask = torch.tensor([[column < len(row) for column in range(width)] for row in rows])
    return ids, mask


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
