"""Requests and answers in OpenAI's form."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from limner.decoding import Decoding
from limner.serve.batching import Written
from limner.serve.media import Medium, too_many
from limner.serve.problems import Problem, refused
from limner.serve.settings import Service

GREEDY_BELOW = 1e-4
"""A temperature below this is greedy: dividing by it overflows."""
_IGNORED = "Taken and ignored."


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Address(_Part):
    """Where an image or video is."""

    url: str = Field(description="A data: URL in base64; http(s) only where the server allows the host.")
    detail: Literal["auto", "low", "high"] | None = Field(None, description=_IGNORED)


class TextPart(_Part):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ImagePart(_Part):
    """An image of a message; `data:video/...` makes it a video."""

    type: Literal["image_url"]
    image_url: Address


class VideoPart(_Part):
    """A video of a message."""

    type: Literal["video_url"]
    video_url: Address


class Message(_Part):
    """What is shown and asked."""

    role: Literal["system", "developer", "user"]
    content: str | list[Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]]


class StreamOptions(_Part):
    """What a stream holds."""

    include_usage: bool | None = None


class ChatRequest(_Part):
    """A chat completion of one turn that shows images or a video. Fields that are not here are ignored."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=64)
    n: int | None = Field(None, ge=1, description="How many captions.")
    temperature: float | None = Field(None, ge=0, le=2, description="1 if not given; 0 is greedy.")
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="Goes before max_tokens.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = Field(None, ge=0, le=0, description="Only 0.")
    presence_penalty: float | None = Field(None, ge=0, le=0, description="Only 0.")
    logprobs: Literal[False] | None = Field(None, description="Not given by this server.")


UNSUPPORTED = ("tools", "functions", "stop", "logit_bias", "audio", "response_format")
"""Fields that would change the answer and that are not supported: refused instead of ignored."""


def parsed(body: bytes) -> ChatRequest:
    """A request's body.

    Raises:
        Problem: it is no such request; the message names the field and repeats nothing of it.
    """
    try:
        request = ChatRequest.model_validate_json(body)
        given: Any = json.loads(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])) or None
        raise refused(f"{param or 'the body'}: {first['msg']}", param, "invalid_request") from None
    except (ValueError, RecursionError):
        raise refused("the body is not JSON", None, "invalid_request") from None
    for name in UNSUPPORTED:
        plain = name == "response_format" and given.get(name) == {"type": "text"}
        if given.get(name) and not plain:
            raise refused(f"{name} is not supported: this server describes images", name, "unsupported")
    return request


def shown(request: ChatRequest, service: Service) -> tuple[str, list[Medium]]:
    """The text of a request, and what it shows.

    Raises:
        Problem: another model is wanted, nothing is shown, or too much.
    """
    if request.model != service.name:
        raise unknown_model(service.name)
    texts: list[str] = []
    media: list[Medium] = []
    for m, message in enumerate(request.messages):
        parts = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else (
            message.content
        )  # fmt: skip
        for p, part in enumerate(parts):
            if isinstance(part, TextPart):
                texts.append(part.text)
                continue
            video = isinstance(part, VideoPart)
            url = part.video_url.url if isinstance(part, VideoPart) else part.image_url.url
            media.append(Medium(url, video, f"messages.{m}.content.{p}"))
    text = "\n".join(filter(None, map(str.strip, texts)))
    limits = service.limits
    if len(text) > limits.prompt_characters:
        raise refused(f"more than {limits.prompt_characters} characters of text", "messages", "too_long")
    if not media:
        raise refused("no image: this model describes images and videos", "messages", "no_image")
    if len(media) > limits.images:
        raise too_many(limits, "messages")
    return text, media


def decoding_of(request: ChatRequest, service: Service) -> tuple[Decoding, int, int]:
    """How captions are drawn, how many, and the seed.

    Raises:
        Problem: more is wanted than the limits allow.
    """
    limits = service.limits
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    tokens: int | None = getattr(request, name)
    if tokens is not None and tokens > limits.tokens:
        raise refused(f"{name} is above this server's limit of {limits.tokens}", name, "too_many_tokens")
    captions = request.n or 1
    if captions > limits.captions:
        raise refused(f"n is above this server's limit of {limits.captions}", "n", "too_many_captions")
    temperature = 1.0 if request.temperature is None else request.temperature
    greedy = temperature < GREEDY_BELOW
    decoding = Decoding(
        do_sample=not greedy,
        temperature=1.0 if greedy else temperature,
        top_p=1.0 if greedy or request.top_p is None else request.top_p,
        max_new_tokens=tokens or service.default_tokens,
    )
    seed = secrets.randbits(63) if request.seed is None else request.seed
    return decoding, captions, 0 if greedy else seed


def unknown_model(name: str) -> Problem:
    """A model that is not served."""
    return Problem(404, f"there is no such model; this server has {name!r}", code="model_not_found")


def completion(model: str, captions: Sequence[Written], prompt_tokens: int) -> dict[str, Any]:
    """A whole answer."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": caption.text, "refusal": None},
            "logprobs": None,
            "finish_reason": _finish(caption),
        }
        for index, caption in enumerate(captions)
    ]
    head = header(model, "chat.completion")
    return {**head, "choices": choices, "usage": usage(captions, prompt_tokens)}


def header(model: str, kind: str) -> dict[str, Any]:
    """What every answer begins with."""
    created, name = int(time.time()), f"chatcmpl-{secrets.token_hex(12)}"
    return {"id": name, "object": kind, "created": created, "model": model}


def chunk(head: dict[str, Any], index: int, delta: dict[str, str], finished: Written | None = None) -> bytes:
    """One event of a stream."""
    finish = None if finished is None else _finish(finished)
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event({**head, "choices": [choice]})


def event(row: dict[str, Any]) -> bytes:
    """A line of a stream of events."""
    return b"data: " + json.dumps(row).encode() + b"\n\n"


def usage(captions: Sequence[Written], prompt_tokens: int) -> dict[str, int]:
    """Counts of tokens; of the prompt with those that the pictures take."""
    written = sum(caption.tokens for caption in captions)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
    }


def _finish(caption: Written) -> str:
    return "stop" if caption.ended else "length"
