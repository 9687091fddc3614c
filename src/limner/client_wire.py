"""What an OpenAI-compatible server sends back: an answer, or one of the many ways in which it gives none."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limner.answering.base import Reply
from limner.errors import UserError

if TYPE_CHECKING:
    from limner.client import Endpoint

SHOWN = 200
"""Characters of a server's message that are passed on."""
_BUSY = frozenset({408, 409, 425, 429, 502, 503, 504})
"""HTTP status codes of an endpoint that is away or busy."""


@dataclass(frozen=True)
class Failure:
    """Why a request has no answer."""

    kind: str
    """What is counted: `connection`, `busy`, `server`, `time-out`, `bad request`, `refusal`, `garbage`,
    `empty`."""
    message: str
    """For people."""
    own: bool = False
    """It is the conversation's fault; another try may go better."""
    unclear: bool = False
    """It may be the conversation's fault or the endpoint's."""
    final: bool = False
    """Asking again is in vain."""
    retry_after: float = 0.0
    """Seconds that the server wants to be left alone for."""


def answer_of(text: str, *, key: str | None) -> Reply | Failure:
    """The answer in the body of a response with status 200.

    Args:
        text: the body.
        key: the key that was sent, if there was one; it is taken out of what is told of a failure.
    """
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError):
        return Failure("garbage", f"no JSON: {scrubbed(text, key)}", own=True)
    choices = row.get("choices") if isinstance(row, dict) else None
    if not isinstance(choices, list):
        return Failure("garbage", f"no chat completion: {scrubbed(text, key)}", own=True)
    choice: Any = choices[0] if choices else None
    message: Any = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return Failure("empty", "a chat completion without a message", own=True)
    refusal = message.get("refusal")
    if refusal or choice.get("finish_reason") == "content_filter":
        return Failure("refusal", scrubbed(str(refusal or "stopped by a content filter"), key), own=True)
    content = _text(message.get("content"))
    if not content.strip():
        ended = choice.get("finish_reason")
        return Failure("empty", f"no text in the answer (finish_reason {ended})", own=True)
    usage = row.get("usage")
    return Reply(content, "", _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens"))


def failure_of(error: Exception, endpoint: Endpoint, *, key: str | None, reached: bool) -> Failure:
    """What an exception of the library means.

    Args:
        error: openai's, or a TimeoutError.
        endpoint: who was asked.
        key: the key that was sent, if there was one; it is taken out of what the server says.
        reached: whether the endpoint has answered before.

    Raises:
        UserError: a wrong key or none, or no such model.
    """
    import openai

    if type(error.__cause__).__name__ == "ConnectTimeout":  # of httpx, in whichever edition openai has it
        return Failure("connection", "no connection: nothing there answers")
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return Failure("time-out", f"no answer in {endpoint.timeout_seconds:g} s", unclear=True)
    if not isinstance(error, openai.APIStatusError):
        cause = error.__cause__ or error
        return Failure("connection", scrubbed(f"{type(cause).__name__}: {cause}", key))
    status, said = error.status_code, scrubbed(_said(error.body, error.response.text), key)
    message = f"HTTP {status}: {said}"
    if status == 401 or (status == 403 and not reached):
        raise UserError(_about_key(endpoint, status))
    if status == 404 and not reached:
        raise UserError(
            f"{endpoint.base_url} has no model {endpoint.model!r}, or no chat completions: {said}. "
            f"`curl {endpoint.base_url.rstrip('/')}/models` lists its models; most addresses end in /v1"
        )
    if status in _BUSY or status == 404:  # a gateway may lose sight of a server that starts again
        wait = _retry_after(error.response.headers)
        return Failure("busy" if status == 429 else "server", message, retry_after=wait)
    if status >= 500:
        return Failure("server", message, unclear=True)
    if status == 403 or error.code == "content_filter":
        return Failure("refusal", message, final=True)
    return Failure("bad request", message, final=True)


def scrubbed(text: str, key: str | None) -> str:
    """Text as it is shown: short, on one line, without the key."""
    return shown(text if key is None else text.replace(key, "***"))


def shown(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text[: 2 * SHOWN].split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def _about_key(endpoint: Endpoint, status: int) -> str:
    """What to do about a key; what the server says of it may hold parts of it, and is not repeated."""
    if endpoint.key_env is None:
        return (
            f"{endpoint.base_url} wants a key (HTTP {status}): put it into an environment variable and the "
            "variable's name into key_env, such as key_env: OPENAI_API_KEY"
        )
    return (
        f"{endpoint.base_url} refuses the key in the environment variable {endpoint.key_env} "
        f"(HTTP {status}): export {endpoint.key_env}=... with one that may use {endpoint.model!r}"
    )


def _said(body: object, text: str) -> str:
    """The message in the body of an error."""
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, Mapping) else inner
        if isinstance(message, str):
            return message
    return text or "no reason given"


def _text(content: object) -> str:
    """The text of a message; some servers send a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _tokens(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, which holds seconds or a date."""
    value = headers.get("retry-after", "")
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
