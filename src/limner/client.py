"""A language model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, or a service.

What can go wrong with a conversation goes wrong with that one alone: it gets a `Reply` without text, and is
counted. An endpoint that is away is waited for. A key is read from the environment when it is sent, and is
in nothing that is shown or written.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from annotated_types import Ge, Gt

from limner.answering.base import Conversation, Reply
from limner.client_cache import Cache, key_of
from limner.client_round import Round, apart
from limner.errors import UserError

NO_KEY = "EMPTY"
"""What is sent as key to servers that want none: the library cannot send nothing."""
FIRST_SECONDS = 10.0
"""A server that was never there is tried for so long: its address may be mistyped."""
_SECRET = re.compile(r"(?i)api[_-]?key|authorization|password|secret|(access|auth|bearer)[_-]?token")
"""Names of fields that hold keys."""
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
"""Capital letters only, because the keys of the common services have small ones: a key that was written
where its variable's name belongs is refused before it can be kept anywhere."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model answers, and how patiently it is asked."""

    base_url: str
    """Address up to the version: `http://localhost:8000/v1`."""
    model: str
    """The model's name there; `curl BASE_URL/models` lists what a server has."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; null for a server without one."""
    concurrency: Annotated[int, Ge(1)] = 32
    """Requests under way at a time."""
    timeout_seconds: Annotated[float, Gt(0)] = 120.0
    """A request that takes longer is given up and made again."""
    patience_seconds: Annotated[float, Ge(0)] = 600.0
    """How long the endpoint may stay away (refused connections, HTTP 5xx and 429) before it is given up."""
    tries: Annotated[int, Ge(1)] = 3
    """How often a conversation is asked that gets no usable answer while others do: time-out, refusal, ..."""
    cache: str | None = None
    """Folder where answers are kept for runs to come; null keeps none."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """More fields of every request: `{chat_template_kwargs: {enable_thinking: false}}`. Never a key."""

    def __post_init__(self) -> None:
        """Refuse an address that is none, and secrets where they would be written down.

        Raises:
            ValueError: one of those; the message never repeats the value.
        """
        address = urlsplit(self.base_url)
        if address.username is not None or address.password is not None or address.query:
            raise ValueError(
                "base_url holds a user, password or query: put the key into an environment variable and its "
                "name into key_env"
            )
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url is {self.base_url!r}: must be like http://localhost:8000/v1")
        if self.key_env is not None and not _VARIABLE.fullmatch(self.key_env):
            raise ValueError(
                "key_env must be the name of an environment variable in capital letters, such as "
                "OPENAI_API_KEY, and never the key itself"
            )
        secret = next((name for name in _fields(self.extra) if _SECRET.fullmatch(name)), None)
        if secret is not None:
            raise ValueError(
                f"extra holds {secret!r}, and what it holds is written down: put the key into an environment "
                "variable and its name into key_env"
            )

    def key(self) -> str:
        """The key as it is in the environment now; `EMPTY` if none is wanted.

        Raises:
            UserError: the variable is not set, or holds what is no key.
        """
        if self.key_env is None:
            return NO_KEY
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise UserError(
                f"{self.base_url}: the environment variable {self.key_env}, which key_env names, is not set: "
                f"export {self.key_env}=... before the run"
            )
        if not all("!" <= character <= "~" for character in key):
            raise UserError(
                f"{self.base_url}: the environment variable {self.key_env} holds spaces or letters that are "
                "in no key: set it anew"
            )
        return key


def _fields(value: object) -> Iterator[str]:
    """Names of all fields, however deep."""
    for inner in value if isinstance(value, list | tuple) else ():
        yield from _fields(inner)
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        yield str(name)
        yield from _fields(inner)


class Client:
    """Asks an endpoint many conversations at a time.

    It keeps nothing open between calls, may be called from several threads and inside a running event loop.
    """

    def __init__(self, endpoint: Endpoint, *, first_seconds: float | None = None):
        """Check what can be checked without asking.

        Args:
            endpoint: who is asked.
            first_seconds: a server to which no connection was ever made is tried for so long only,
                `FIRST_SECONDS` if not given. One that says it is starting gets all of `patience_seconds`.

        Raises:
            UserError: openai is not installed, the key's variable is not set, or the cache cannot be used.
        """
        if importlib.util.find_spec("openai") is None:
            raise UserError(
                f"{endpoint.base_url}: endpoints need the package openai: pip install 'limner[endpoint]'"
            )
        endpoint.key()
        self.endpoint = endpoint
        self.counts: Counter[str] = Counter()
        """`asked`, `answered`, `cached`, `retries`, `failed` and `failed/REASON` conversations, and
        `prompt_tokens` and `completion_tokens` of the answers that came from the endpoint."""
        self._cache = None if endpoint.cache is None else Cache(Path(endpoint.cache).expanduser())
        self._reached = False
        self._first_seconds = FIRST_SECONDS if first_seconds is None else first_seconds

    def ask(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Reply]:
        """One reply a conversation, in order. Equal conversations are asked once and get one reply.

        Args:
            conversations: what is asked.
            max_new_tokens: the longest answer.
            temperature: 0 is greedy.
            seed: of the server's sampling, where it has a seed. A conversation that is asked again because
                its answer could not be used is asked with another one.
            schema: JSON schema that the answer must follow, where the server can hold a model to it; the
                answer is text all the same, and is not checked here.

        Raises:
            UserError: no key or a wrong one, no such model, every conversation is refused as malformed, or
                the endpoint stayed away for `patience_seconds` and answered nothing.
        """
        bodies: dict[str, dict[str, Any]] = {}
        keys: list[str] = []
        for conversation in conversations:
            body = self._body(conversation, max_new_tokens, temperature, seed, schema)
            keys.append(key_of(self.endpoint.base_url, body))
            bodies[keys[-1]] = body
        replies = {} if self._cache is None else self._cache.get(list(bodies))
        self.counts["asked"] += len(keys)
        self.counts["cached"] += sum(key in replies for key in keys)
        missing = {key: body for key, body in bodies.items() if key not in replies}
        if missing:
            replies |= self._ask(missing)
        self.counts["answered"] += sum(replies[key].text is not None for key in keys)
        return [replies[key] for key in keys]

    def _body(
        self,
        conversation: Conversation,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        schema: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """What is sent for one conversation, which is what decides its answer."""
        body = {
            **self.endpoint.extra,
            "model": self.endpoint.model,
            "messages": [dict(message) for message in conversation],
            "max_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed % 2**31,
        }
        if schema is not None:
            form = {"name": "reply", "strict": True, "schema": dict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    def _ask(self, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Reply]:
        """Ask what no cache knows, and keep the answers as they come."""
        round = Round(self.endpoint, self._cache, reached=self._reached, first_seconds=self._first_seconds)
        try:
            replies = apart(round.run(bodies))
        finally:
            self.counts.update(round.counts)
            if self._cache is not None:
                self._cache.flush()
        self._reached = self._reached or round.reached
        return replies
