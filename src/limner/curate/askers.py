"""Who writes and answers questions: a model behind an endpoint, or a captioner in this process."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from limner.answering.base import Asker, Conversation, Reply
from limner.answering.named import check_language_model, is_address
from limner.decoding import Decoding
from limner.errors import UserError
from limner.types import Sample

_BLANK = (224, 224)
"""Size of the grey picture that a captioner is shown where a question is asked without the image."""
_LOSSLESS = 256


def load(
    model: str,
    *,
    name: str | None = None,
    key_env: str | None = None,
    cache: Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    text: bool = False,
    option: str = "--name",
) -> Asker:
    """A model by its address or path.

    Args:
        model: address of an OpenAI-compatible endpoint, `http://localhost:8000/v1`, or a captioner: hub id,
            folder, a run's folder.
        name: the model's name at the endpoint.
        key_env: environment variable with the endpoint's key.
        cache: folder that keeps an endpoint's answers as they come.
        device: of a model in this process.
        dtype: of a model in this process.
        text: load a language model without eyes.
        option: of the command line, which gives the endpoint's `name`.

    Raises:
        UserError: no such model, or the endpoint's name or key is missing.
    """
    if is_address(model):
        from limner.client import Client, Endpoint

        if not name:
            raise UserError(f"{model}: which model? {option} NAME; `curl {model}/models` lists what it has")
        try:
            kept = None if cache is None else str(cache)
            endpoint = Endpoint(base_url=model, model=name, key_env=key_env, cache=kept, timeout_seconds=600)
        except ValueError as error:
            raise UserError(str(error)) from None
        return Client(endpoint)
    if text:
        from limner.answering.local import LocalModel
        from limner.devices import torch_device, torch_dtype

        return LocalModel.load(model, device=torch_device(device), dtype=torch_dtype(dtype))
    from limner.export import load_captioner

    return CaptionerAsker(load_captioner(model, device=device, dtype=dtype))


def check(
    model: str, *, name: str | None, key_env: str | None, text: bool = False, option: str = "--name"
) -> None:
    """Look whether a model is there and of the right kind, without loading it.

    Raises:
        UserError: as of `load`, as far as can be told.
    """
    if is_address(model):
        load(model, name=name, key_env=key_env, option=option)
    elif text:
        check_language_model(model)
    else:
        from limner import captioners, checkpoint

        if checkpoint.named(model) is None:
            captioners.family_of(model)


class CaptionerAsker:
    """A captioner that is asked through its prompt. Without an image it is shown a grey picture."""

    def __init__(self, policy: Any):
        """Take a loaded captioner."""
        self.policy = policy

    def ask(
        self, conversations: Sequence[Conversation], *, max_new_tokens: int, temperature: float, seed: int
    ) -> list[Reply]:
        """One reply a conversation; those with the same text are answered together."""
        import torch

        decoding = Decoding(
            do_sample=temperature > 0, temperature=temperature or 1.0, max_new_tokens=max_new_tokens
        )
        by_text: dict[str, list[int]] = {}
        asked = [_parts(conversation) for conversation in conversations]
        for place, (text, _) in enumerate(asked):
            by_text.setdefault(text, []).append(place)
        replies: list[Reply] = [Reply(None, "not asked")] * len(asked)
        for text, places in by_text.items():
            samples = [Sample(str(place), (asked[place][1],)) for place in places]
            generator = torch.Generator(self.policy.device).manual_seed(seed)
            inputs = self.policy.encode(samples, text)
            made = self.policy.generate(inputs, decoding, generator=generator)
            written = self.policy.texts(made.tokens, made.caption_mask)
            for place, said in zip(places, written, strict=True):
                replies[place] = Reply(said)
        return replies


def message(text: str, image: bytes | None = None) -> Conversation:
    """One message of the user, with a PNG or JPEG file in front of the text."""
    if image is None:
        return [{"role": "user", "content": text}]
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def encoded(image: Image.Image) -> bytes:
    """An image as a file: PNG where it is small, else JPEG of quality 95."""
    buffer = io.BytesIO()
    if max(image.size) <= _LOSSLESS:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _parts(conversation: Conversation) -> tuple[str, Image.Image]:
    """The text and the picture of a conversation; a grey picture where there is none."""
    texts: list[str] = []
    picture = Image.new("RGB", _BLANK, (128, 128, 128))
    for said in conversation:
        content = said["content"]
        parts: Sequence[Mapping[str, Any]] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            else:
                file = io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))
                with Image.open(file) as image:
                    picture = image.convert("RGB")
    return "\n".join(texts), picture
