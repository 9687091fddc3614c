"""What a service is allowed to take, and how it is run: settings only, no torch."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from limner.config_build import Builder
from limner.config_read import put
from limner.errors import UserError
from limner.paths import WORLD

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_HOST = re.compile(r"(?P<name>[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)(:(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may cost. A request above a limit is refused, not cut."""

    body_bytes: Annotated[int, Ge(1)] = 20_000_000
    """Most bytes of a request's body, and of what is fetched for it from addresses."""
    pixels: Annotated[int, Ge(1)] = 40_000_000
    """Most pixels of a picture or a video's frame, read from its header before anything is decoded."""
    side: Annotated[int, Ge(16)] = 1536
    """Longer side in pixels to which pictures are reduced before they wait for the captioner."""
    images: Annotated[int, Ge(1)] = 8
    """Most pictures, or frames, of a request."""
    frames: Annotated[int, Ge(1)] = 8
    """Frames that are taken of a video, evenly."""
    decoded_frames: Annotated[int, Ge(1)] = 3000
    """A video that takes more decoded frames than this is refused."""
    video_seconds: Annotated[float, Gt(0)] = 20.0
    """A video that takes longer than this to decode is refused."""
    tokens: Annotated[int, Ge(1)] = 256
    """Most tokens of a caption that may be asked for."""
    captions: Annotated[int, Ge(1)] = 8
    """Most captions of a request (`n`)."""
    prompt_characters: Annotated[int, Ge(0)] = 4000
    """Most characters of a request's text."""
    waiting: Annotated[int, Ge(1)] = 64
    """Requests in the house, running ones included; one more is answered 429."""
    seconds: Annotated[float, Gt(0)] = 120.0
    """A request that takes longer than this in all is given up."""


@dataclass(frozen=True)
class Service:
    """How a captioner is served."""

    name: str
    """The model's name in requests."""
    limits: Limits = field(default_factory=Limits)
    """What requests may cost."""
    max_batch: Annotated[int, Ge(1)] = 16
    """Most captions that are written together."""
    wait_seconds: Annotated[float, Ge(0)] = 0.02
    """How long the first request of a batch waits at most for others that are on their way."""
    default_tokens: Annotated[int, Ge(1)] = 60
    """Tokens of a caption at most where a request does not say."""
    own_prompt: bool | None = None
    """The captioner's own prompt is used, and the text of requests is left out; None: where it has none."""
    allow_urls: tuple[str, ...] = ()
    """Hosts, with a port where it is not the usual one, that pictures may be fetched from."""
    key_env: str | None = None
    """Name of the environment variable that holds the key that requests must bring; None wants none."""

    def __post_init__(self) -> None:
        """Refuse settings that would not do what was meant.

        Raises:
            ValueError: the sentence to show.
        """
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):
            raise ValueError(
                "key_env must be the name of an environment variable in capital letters, such as "
                "LIMNER_KEY, and never the key itself"
            )
        for host in self.allow_urls:
            if not _HOST.fullmatch(host) or _is_address(host):
                raise ValueError(
                    f"allow_urls: {host!r} is no host; write it in small letters and without http://, "
                    "such as images.example.org or images.example.org:8443"
                )
        if self.default_tokens > self.limits.tokens:
            raise ValueError(f"default_tokens {self.default_tokens} is above limits.tokens")
        if self.limits.captions > self.max_batch:
            raise ValueError(f"limits.captions {self.limits.captions} is above max_batch {self.max_batch}")

    def key(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The key that requests must bring, as it is in the environment now.

        Raises:
            ValueError: there is none where one is wanted.
        """
        if self.key_env is None:
            return None
        key = environment.get(self.key_env, "")
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"the environment variable {self.key_env}, which --key-env names, must hold a key: "
                "letters, digits and signs without spaces"
            )
        return key


def name_of(model: str) -> str:
    """What a captioner is called: its folder's or hub id's last part; parts of the world as they are."""
    return model if model.startswith(WORLD) else Path(model).absolute().name


def limits_of(overrides: Sequence[str]) -> Limits:
    """Limits from `limit=value`.

    Raises:
        UserError: everything that is wrong with them, one line each.
    """
    tree, origins, typed = put({}, {}, overrides)
    builder = Builder(origins, typed, complete=True)
    built = builder.build(Limits, tree, None)
    if builder.errors:
        raise UserError("\n".join(["limits:", *builder.errors]))
    return built


def _is_address(host: str) -> bool:
    """Whether it is the number of a machine instead of a name."""
    try:
        ipaddress.ip_address(host.partition(":")[0])
    except ValueError:
        return False
    return True
