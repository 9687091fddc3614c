"""What is asked of a language model and what it replies, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Conversation = Sequence[Mapping[str, Any]]
"""Chat messages as OpenAI's API takes them: `{"role": "user", "content": "..."}`. Content is text, or a list
of parts: `{"type": "text", "text": ...}` and `{"type": "image_url", "image_url": {"url": "data:..."}}`."""


@dataclass(frozen=True)
class Reply:
    """What came back for one conversation."""

    text: str | None
    """The answer; None where there is none."""
    error: str = ""
    """Why there is no answer; empty where there is one."""
    prompt_tokens: int = 0
    """Tokens read for it, where they are known."""
    completion_tokens: int = 0
    """Tokens written for it, where they are known."""


class Asker(Protocol):
    """Anything that answers conversations: `limner.answering.local.LocalModel`, `limner.client.Client`."""

    def ask(
        self,
        conversations: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[Reply]:
        """One reply a conversation, in order; a conversation without an answer never touches the others.

        Args:
            conversations: What is asked; they know nothing of each other.
            max_new_tokens: The longest answer.
            temperature: 0 is greedy.
            seed: Of the sampling.

        Raises:
            UserError: nobody can be asked: no model, no key.
        """
        ...
