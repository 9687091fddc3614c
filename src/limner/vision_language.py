"""Frozen models that judge a caption against an image: BLIP-2's image-text matching (ITM) and CLIP.

Both are the classes of transformers, so any checkpoint of those classes loads: `Salesforce/blip2-itm-vit-g`,
OpenAI's CLIP, OpenCLIP checkpoints converted to Hugging Face. Images go through the checkpoint's own
preprocessing on Pillow, texts through its own tokenizer, cut where the model's positions end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn.functional import normalize
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    Blip2ForImageTextRetrieval,
    CLIPModel,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.image_processing_utils import BaseImageProcessor

from limner.captioners.files import explained, read_config
from limner.errors import UserError
from limner.paths import resolve

MATCH = 1
"""Index of the class "the text describes the image" in the head of `Blip2ForImageTextRetrieval`.

BLIP-2 was trained with label 1 for true pairs, and the example in transformers' own documentation reads the
probability of "two cats" off index 1. A test checks it on the miniature world's model.
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
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.max_tokens = min(
            tokenizer.model_max_length, self.model.config.qformer_config.max_position_embeddings
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def vision(self) -> nn.Module:
        """The vision tower. A tower with equal weights may be put in its place, so that memory holds one."""
        return self.model.vision_model

    @vision.setter
    def vision(self, tower: nn.Module) -> None:
        self.model.vision_model = tower

    @torch.no_grad()
    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """(B, P, D) features of B RGB images, P counting the class token, on the model's device; one pass."""
        pixels = _pixels(self.image_processor, images).to(self.device, self.model.vision_model.dtype)
        return self.model.vision_model(pixel_values=pixels).last_hidden_state

    @torch.no_grad()
    def logits(self, features: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Logits of R pairs before the softmax, averaged over the queries (arXiv 2404.01911, section 3.4).

        Args:
            features: (R, P, D) image features, one row a text.
            texts: R texts; an empty one is scored like any other.

        Returns:
            (R, 2) float32 on the model's device; in column `MATCH` more is better.
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

    def match(self, features: torch.Tensor, texts: Sequence[str], *, micro_batch: int = 128) -> torch.Tensor:
        """The match logit of every text with its image; texts of like length go through together.

        Args:
            features: (B, P, D) features of B images.
            texts: N = B*G texts; text n belongs to image n // G.
            micro_batch: texts in one pass.

        Returns:
            (N,) float32 on the CPU.
        """
        scores = torch.empty(len(texts))
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for start in range(0, len(order), micro_batch):
            rows = order[start : start + micro_batch]
            images = torch.tensor(rows, device=features.device) // (len(texts) // len(features))
            scores[rows] = self.logits(features[images], [texts[row] for row in rows])[:, MATCH].cpu()
        return scores


class ClipModel:
    """CLIP's two towers: unit vectors of images and of texts, whose inner product is their similarity."""

    def __init__(
        self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, *, image_processor: BaseImageProcessor
    ):
        self.model: Any = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.max_tokens = min(
            tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], *, micro_batch: int = 64) -> torch.Tensor:
        """(B, D) float32 unit vectors of B RGB images, on the model's device."""
        vectors = []
        for start in range(0, len(images), micro_batch):
            pixels = _pixels(self.image_processor, images[start : start + micro_batch])
            output = self.model.get_image_features(pixel_values=pixels.to(self.device, self.model.dtype))
            vectors.append(normalize(output.pooler_output.float(), dim=-1))
        return torch.cat(vectors)

    @torch.no_grad()
    def texts(self, texts: Sequence[str], *, micro_batch: int = 256) -> torch.Tensor:
        """(N, D) float32 unit vectors of N texts, on the model's device."""
        vectors = []
        for start in range(0, len(texts), micro_batch):
            chosen = texts[start : start + micro_batch]
            ids, mask = _padded_ids(self.tokenizer, chosen, max_tokens=self.max_tokens)
            output = self.model.get_text_features(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device, torch.long)
            )
            vectors.append(normalize(output.pooler_output.float(), dim=-1))
        return torch.cat(vectors)


def load_itm(
    path: str, device: torch.device | str = "cpu", *, dtype: torch.dtype | str = "float32"
) -> ItmModel:
    """The ITM model of a folder or hub id (`world:itm`: the miniature world's).

    Raises:
        UserError: it cannot be loaded, is no ITM checkpoint, or lacks some of the weights.
    """
    model, tokenizer, processor = _load(Blip2ForImageTextRetrieval, path, dtype=dtype)
    return ItmModel(model.to(device), tokenizer, image_processor=processor)


def load_clip(
    path: str, device: torch.device | str = "cpu", *, dtype: torch.dtype | str = "float32"
) -> ClipModel:
    """The CLIP of a folder or hub id (`world:clip`: the miniature world's).

    Raises:
        UserError: it cannot be loaded, is no CLIP checkpoint, or lacks some of the weights.
    """
    model, tokenizer, processor = _load(CLIPModel, path, dtype=dtype)
    return ClipModel(model.to(device), tokenizer, image_processor=processor)


def same_encoder(one: tuple[nn.Module, Any], other: tuple[nn.Module, Any]) -> bool:
    """Whether two vision towers with their preprocessing give the same features."""
    (tower, processor), (other_tower, other_processor) = one, other
    if type(tower) is not type(other_tower) or _settings(tower.config) != _settings(other_tower.config):
        return False
    if type(processor) is not type(other_processor) or processor.to_dict() != other_processor.to_dict():
        return False
    weights, other_weights = _tensors(tower), _tensors(other_tower)
    return weights.keys() == other_weights.keys() and all(
        torch.equal(weight, other_weights[name].to(weight.device)) for name, weight in weights.items()
    )


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers as they are now; `state_dict` would shard anew what FSDP holds whole."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _settings(config: Any) -> dict[str, object]:
    """What of a tower's settings decides its features: what its class knows, for old files hold more."""
    known = type(config)().to_dict().keys() - PretrainedConfig().to_dict().keys() - {"initializer_range"}
    return {name: value for name, value in config.to_dict().items() if name in known}


def _load(kind: Any, path: str, *, dtype: torch.dtype | str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor; every weight must be there, or random numbers would stand in."""
    found, needed = read_config(path).get("model_type"), kind.config_class.model_type
    if found != needed:
        raise UserError(
            f"{path}: its model_type is {found!r}; {kind.__name__} needs a checkpoint of {needed!r}"
        )
    folder = resolve(path)
    try:
        with explained(path):
            model, info = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
    except (
        ValueError
    ) as error:  # what transformers raises where a tokenizer or image processor is not to be found
        raise UserError(f"{path}: cannot load this checkpoint: {str(error).splitlines()[0]}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{path}: lacks {len(missing)} weights of {kind.__name__}, {missing[0]} among them; "
            "give a checkpoint that was saved from this class"
        )
    return model, tokenizer, processor


def _pixels(processor: BaseImageProcessor, images: Sequence[Image.Image]) -> torch.Tensor:
    return processor(images=list(images), return_tensors="pt")["pixel_values"]


def _padded_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, L) int64 ids, padded on the right, and their (R, L) bool mask; at least one column."""
    rows = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    width = max(1, *map(len, rows))
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[column < len(row) for column in range(width)] for row in rows])
    return ids, mask
