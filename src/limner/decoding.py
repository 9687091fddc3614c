"""How captions are drawn from a captioner: settings only, no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le


@dataclass(frozen=True)
class Decoding:
    """Sampling, greedy or beam search, with the meanings of transformers' `generate`."""

    do_sample: bool = True
    """Draw tokens at random; otherwise take the likeliest (greedy, or beams)."""
    top_k: Annotated[int, Ge(0)] = 0
    """Draw among this many likeliest tokens only; 0 draws among all."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw among the fewest likeliest tokens that hold this much probability."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the logits before drawing."""
    num_beams: Annotated[int, Ge(1)] = 1
    """Beams kept by the search; 1 is greedy."""
    min_new_tokens: Annotated[int, Ge(0)] = 0
    """No end of sequence before this many tokens."""
    max_new_tokens: Annotated[int, Ge(1)] = 60
    """A caption is cut after this many tokens, the end of sequence included."""
    no_repeat_ngram_size: Annotated[int, Ge(0)] = 0
    """No n-gram of this many tokens appears twice in a caption; 0 allows all."""
    length_penalty: float = 1.0
    """Beam scores are divided by length to this power: above 0 prefers longer captions."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ValueError: The sentence to show.
        """
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}"
            )
        if self.do_sample and self.num_beams > 1:
            raise ValueError("num_beams above 1 is a search, not a draw: set do_sample to false")

    def greedy(self) -> Decoding:
        """The likeliest token at every step, with the same limits."""
        limits = {field.name: getattr(self, field.name) for field in fields(Decoding)}
        return Decoding(**{**limits, "do_sample": False, "num_beams": 1})


@dataclass(frozen=True)
class Rollout(Decoding):
    """Which captions a training step learns from."""

    captions: Annotated[int, Ge(1)] = 1
    """G, captions a sample."""
    of: Literal["policy", "references"] = "policy"
    """Whose captions: the policy's own, or G of a sample's references, drawn anew in every step."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other.

        Raises:
            ValueError: The sentence to show.
        """
        super().__post_init__()
        if self.of == "policy" and not self.do_sample and self.captions > self.num_beams:
            raise ValueError(
                f"a search with {self.num_beams} beams cannot give {self.captions} different captions: "
                "set do_sample to true or num_beams higher"
            )


PUBLISHED = Decoding(
    do_sample=False, num_beams=5, min_new_tokens=4, max_new_tokens=60, no_repeat_ngram_size=2
)
"""How VLRM (arXiv 2404.01911) writes captions for evaluation."""
